"""Runs a plan: in dependency order, everything that can run at once, a failure stopping only what needs it."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from orchestration.graph import Step, canonical
from orchestration.plan import Planned
from orchestration.store import Store
from orchestration.work import callable_of, commit_shards, run_whole, work_of

Emit = Callable[[str, Step, dict[str, Any]], None]  # (event, step, details)


@dataclass(frozen=True)
class Outcome:
    """What became of a step. `error` is a short message, `exit_code` 2 for a user's mistake."""

    state: Literal["cached", "ran", "failed", "skipped"]
    error: str = ""
    exit_code: int = 0
    detail: str = ""


@dataclass(frozen=True)
class Finished:
    """One step an engine is done with."""

    step: Step
    error: BaseException | None
    detail: str = ""


class Engine(Protocol):
    """Where steps run."""

    def start(self, step: Step) -> None:
        """Accept a step whose inputs are committed."""
        ...

    def next(self) -> Finished:
        """Block until one of the accepted steps is done."""
        ...

    def close(self) -> None: ...


def run_plan(plan: Sequence[Planned], open_engine: Callable[[], Engine], emit: Emit) -> dict[str, Outcome]:
    """Run every step the plan says will run; outcomes by key. The engine is opened only when there is work.

    `emit` hears of every change. A blocked step counts as failed, its dependants as skipped.
    """
    outcomes: dict[str, Outcome] = {}
    waiting: dict[str, Step] = {}
    for planned in plan:
        if planned.state == "cached":
            outcomes[planned.step.key] = Outcome("cached")
        elif planned.state == "blocked" and not any(_is_bad(outcomes.get(s.key)) for s in planned.step.inputs.values()):
            outcomes[planned.step.key] = Outcome("failed", planned.why, exit_code=1)
            emit("failed", planned.step, {"error": planned.why})
        else:
            waiting[planned.step.key] = planned.step
    if not waiting:
        return outcomes
    engine = open_engine()
    running = 0
    try:
        while True:
            running += _advance(waiting, outcomes, engine, emit)
            if not running:
                return outcomes
            done = engine.next()
            running -= 1
            outcomes[done.step.key] = _outcome(done)
            emit(outcomes[done.step.key].state, done.step, _details(outcomes[done.step.key]))
    finally:
        engine.close()


def _advance(waiting: dict[str, Step], outcomes: dict[str, Outcome], engine: Engine, emit: Emit) -> int:
    """Start what became ready and skip what lost an input; how many were started. `waiting` is in dependency order."""
    started = 0
    for key, step in list(waiting.items()):
        results = [outcomes.get(source.key) for source in step.inputs.values()]
        if any(_is_bad(result) for result in results):
            lost = next(s for s in step.inputs.values() if _is_bad(outcomes.get(s.key)))
            outcomes[key] = Outcome("skipped", f"needs {lost.label}")
            emit("skipped", step, {"error": f"needs {lost.label}"})
        elif all(results):
            engine.start(step)
            emit("started", step, {})
            started += 1
        else:
            continue
        del waiting[key]
    return started


def _is_bad(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.state in ("failed", "skipped")


def _outcome(done: Finished) -> Outcome:
    if done.error is None:
        return Outcome("ran")
    known = hasattr(done.error, "exit_code")  # an error raised on purpose explains itself
    message = str(done.error) if known else f"{type(done.error).__name__}: {done.error}"
    return Outcome("failed", message, getattr(done.error, "exit_code", 1), done.detail)


def _details(outcome: Outcome) -> dict[str, Any]:
    return {"error": outcome.error, "detail": outcome.detail} if outcome.error else {}


class InlineEngine:
    """Runs each step in this process: for a debugger, and for tests that need no cluster."""

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self._queue: deque[Step] = deque()
        self._workers: dict[str, Any] = {}

    def start(self, step: Step) -> None:
        self._queue.append(step)

    def next(self) -> Finished:
        step = self._queue.popleft()
        try:
            self._run(step)
        except Exception as error:
            return Finished(step, error, traceback.format_exc())
        return Finished(step, None)

    def close(self) -> None:
        self._workers.clear()

    def _run(self, step: Step) -> None:
        work = work_of(step, self._store)
        if step.setup is None:
            run_whole(step.run, work)
            return
        started = time.time()
        work.out.begin()
        count = callable_of(step.run).shard_count(work)
        for shard in range(count):
            if not work.out.shard_committed(shard):
                self._worker(step.run, step.setup).fill(work, shard)
            self._emit("shard", step, {"done": shard + 1, "of": count})
        commit_shards(work, started, count)

    def _worker(self, reference: str, setup: Mapping[str, Any]) -> Any:
        name = worker_name(reference, setup)
        if name not in self._workers:
            self._workers[name] = callable_of(reference)(setup)
        return self._workers[name]


def worker_name(reference: str, setup: Mapping[str, Any]) -> str:
    """Steps of one name can share workers."""
    return f"{reference} {canonical(dict(setup))}"
