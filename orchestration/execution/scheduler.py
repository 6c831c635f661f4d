"""Runs a plan: in dependency order, everything that can run at once, a failure stopping only what needs it."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from orchestration.errors import LeaseLost, exit_code_of
from orchestration.execution.work import callable_of, commit_shards, fill_shard, run_whole, work_of
from orchestration.graph import Step, canonical
from orchestration.runs.plan import Planned
from orchestration.store.artifacts import Store
from orchestration.store.leases import Holder, Lease, Leases

_log = logging.getLogger(__name__)
POLL_SECONDS = 0.5  # between looks at what another driver is making
Emit = Callable[[str, Step, dict[str, Any]], None]  # (event, step, details)


@dataclass(frozen=True)
class Outcome:
    """What became of a step. `error` is a short message, `exit_code` 2 for a user's mistake.

    It is cached where it was there at the start, or another driver made it meanwhile.
    """

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

    store: Store

    def accepts(self, step: Step) -> bool:
        """Whether it would begin a step soon: one that would only queue here is left to other drivers."""
        ...

    def start(self, step: Step, lease: Lease) -> None:
        """Accept a step whose inputs are committed."""
        ...

    def next(self, seconds: float | None) -> Finished | None:
        """Block until one of the accepted steps is done; None after so many seconds, or where it accepts more."""
        ...

    def close(self) -> None: ...


def run_plan(plan: Sequence[Planned], open_engine: Callable[[], Engine], emit: Emit) -> dict[str, Outcome]:
    """Run every step the plan says will run; outcomes by key. The engine is opened only when there is work.

    `emit` hears of every change. A blocked step counts as failed, its dependants as skipped. What another driver of the
    same store is making is waited for and counts as cached. On KeyboardInterrupt `emit` hears what was in hand, and how
    many more steps are, before workers are ended.
    """
    progress = _Progress(plan, emit)
    if progress.ready:
        engine = open_engine()
        with ExitStack() as last:
            leases = Leases(engine.store.root)
            last.callback(leases.close)
            last.callback(engine.close)  # comes first: no lease is given back while its work still runs
            try:
                _drive(progress, engine, leases, emit)
            except KeyboardInterrupt:
                for more, step in zip(reversed(range(len(progress.begun))), progress.begun, strict=True):
                    emit("interrupted", step, {"more": more})
                raise
    return progress.outcomes


class _Progress:
    """What became of a plan's steps so far, and which are ready."""

    def __init__(self, plan: Sequence[Planned], emit: Emit) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._ready: dict[str, Step] = {}
        self._begun: dict[str, Step] = {}
        self._emit = emit
        self._rank = {planned.step.key: rank for rank, planned in enumerate(plan)}
        self._missing: dict[str, int] = {}  # inputs that are not there yet
        self._readers: dict[str, list[Step]] = {}
        for planned in plan:  # inputs come first
            step, needed = planned.step, {source.key for source in planned.step.inputs.values()}
            if planned.state == "cached":
                self.outcomes[step.key] = Outcome("cached")
            elif lost := [source for source in step.inputs.values() if _is_bad(self.outcomes.get(source.key))]:
                self.end(step, Outcome("skipped", f"needs {lost[0].label}"))
            elif planned.state == "blocked":
                self.end(step, Outcome("failed", planned.why, exit_code=1))
            elif missing := needed - self.outcomes.keys():
                self._missing[step.key] = len(missing)
                for key in missing:
                    self._readers.setdefault(key, []).append(step)
            else:
                self._ready[step.key] = step

    @property
    def ready(self) -> list[Step]:
        """Steps whose inputs are there, in the plan's order."""
        return sorted(self._ready.values(), key=lambda step: self._rank[step.key])

    @property
    def begun(self) -> list[Step]:
        """Steps that the engine has, in the order they were begun."""
        return list(self._begun.values())

    def begin(self, step: Step) -> None:
        """The engine has it."""
        self._begun[step.key] = self._ready.pop(step.key)

    def again(self, step: Step) -> None:
        """The engine has given it back undone."""
        self._ready[step.key] = self._begun.pop(step.key)

    def end(self, step: Step, outcome: Outcome, **told: Any) -> None:
        """Note the outcome of a step, free those that read it, or skip them."""
        ended = [(step, outcome)]
        while ended:
            step, outcome = ended.pop()
            if step.key in self.outcomes:  # skipped because another input is missing
                continue
            self.outcomes[step.key] = outcome
            self._ready.pop(step.key, None)
            self._begun.pop(step.key, None)
            self._emit("shared" if outcome.state == "cached" else outcome.state, step, {**_details(outcome), **told})
            for reader in self._readers.pop(step.key, ()):
                self._missing[reader.key] -= 1
                if _is_bad(outcome):
                    ended.append((reader, Outcome("skipped", f"needs {step.label}")))
                elif not self._missing[reader.key] and reader.key not in self.outcomes:
                    self._ready[reader.key] = reader


def _drive(progress: _Progress, engine: Engine, leases: Leases, emit: Emit) -> None:
    """Run all steps to their ends."""
    held: dict[str, Lease] = {}
    elsewhere: dict[str, tuple[Holder, float]] = {}  # who makes a step, and when that was looked up
    while True:
        for step in progress.ready:
            looked_up = elsewhere[step.key][1] if step.key in elsewhere else 0.0
            if time.monotonic() - looked_up < POLL_SECONDS or not engine.accepts(step):
                continue
            taken = None if engine.store.holds(step) else leases.take(step.folder)
            if isinstance(taken, Holder):
                if step.key not in elsewhere or elsewhere[step.key][0].name != taken.name:
                    emit("waiting", step, {"holder": str(taken)})
                    _log.debug("%s: waiting for %s", step.folder, taken)
                elsewhere[step.key] = (taken, time.monotonic())
                continue
            maker = elsewhere.pop(step.key, None)
            if taken is not None and not engine.store.holds(step):
                held[step.key] = taken
                progress.begin(step)
                engine.start(step, taken)
                emit("started", step, {})
                continue
            if taken is not None:  # another committed it before the lease could be had
                leases.give_back(taken)
            progress.end(step, Outcome("cached"), holder=str(maker[0]) if maker else "another run")
        if held:
            waits = any(step.key in elsewhere for step in progress.ready)
            _one_done(progress, engine.next(POLL_SECONDS if waits else None), leases, held)
        elif progress.ready:
            time.sleep(POLL_SECONDS if elsewhere else 0)
        else:
            return


def _one_done(progress: _Progress, done: Finished | None, leases: Leases, held: dict[str, Lease]) -> None:
    if done is None:
        return
    leases.give_back(held.pop(done.step.key))
    if isinstance(done.error, LeaseLost):
        _log.debug("%s: lease lost, to be tried again", done.step.folder)
        progress.again(done.step)  # to be waited for, or done after all
    else:
        progress.end(done.step, _outcome(done))


def _is_bad(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.state in ("failed", "skipped")


def _outcome(done: Finished) -> Outcome:
    if done.error is None:
        return Outcome("ran")
    code = exit_code_of(done.error)
    message = f"{type(done.error).__name__}: {done.error}" if code is None else str(done.error)
    return Outcome("failed", message, code or 1, done.detail)


def _details(outcome: Outcome) -> dict[str, Any]:
    return {"error": outcome.error, "detail": outcome.detail} if outcome.error else {}


class InlineEngine:
    """Runs each step in this process: for a debugger, and for tests that need no cluster.

    `packages` are those whose versions are recorded with what they made.
    """

    def __init__(self, store: Store, emit: Emit, packages: tuple[str, ...] = ()) -> None:
        self.store = store
        self._packages = packages
        self._emit = emit
        self._next: tuple[Step, Lease] | None = None
        self._workers: dict[str, Any] = {}

    def accepts(self, step: Step) -> bool:
        return self._next is None

    def start(self, step: Step, lease: Lease) -> None:
        self._next = (step, lease)

    def next(self, seconds: float | None) -> Finished:
        assert self._next is not None, "nothing was accepted"
        (step, lease), self._next = self._next, None
        try:
            self._run(step, lease)
        except Exception as error:
            return Finished(step, error, traceback.format_exc())
        return Finished(step, None)

    def close(self) -> None:
        self._workers.clear()

    def _run(self, step: Step, lease: Lease) -> None:
        work = work_of(step, self.store, lease, self._packages)
        if step.setup is None:
            run_whole(step.run, work)
            return
        started = time.time()
        work.out.begin()
        count = callable_of(step.run).shard_count(work)
        for shard in range(count):
            if not work.out.shard_committed(shard):
                fill_shard(self._worker(step.run, step.setup), work, shard)
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
