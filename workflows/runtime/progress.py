"""How a run shows that it goes on: a display on a terminal, plain lines elsewhere.

The engines tell when a step begins and ends; in between a thread looks at what the step itself says (`scratch.told`),
for in one process the engine is the very thread that is at work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from orchestration.execution.scheduler import Emit
from orchestration.graph import Step
from orchestration.runs.plan import Planned
from orchestration.store.artifacts import Store
from orchestration.store.scratch import StepProgress, scratch_folder, told
from workflows.runtime.pace import FIRST_SECONDS, Pace, duration, looking

if TYPE_CHECKING:
    from rich.console import Console

Say = Callable[[str], None]
Look = Callable[[Step], StepProgress | None]  # what a step says of itself
Watching = Callable[[Sequence[Planned], Say, Look], AbstractContextManager[Emit]]
_ENDS = ("ran", "shared", "failed", "skipped")
_SHOWN_SECONDS = 2.0  # a step under way for longer has a line of the display
_MOST = 6  # steps that are told of at once


def watching_on(stream: TextIO) -> Watching:
    """What suits a stream."""
    return live_display if stream.isatty() else plain_lines


def looking_in(store: Store) -> Look:
    """What steps say of themselves in their scratch folders."""
    return lambda step: told(scratch_folder(store.root, step.folder))


class _Flights:
    """What is under way, the longest first, and how fast it goes."""

    def __init__(self, plan: Sequence[Planned], look: Look) -> None:
        self.total = sum(planned.state != "cached" for planned in plan)
        self.cached, self.ended = len(plan) - self.total, 0
        self._look = look
        self._steps: dict[str, tuple[Step | None, Pace]] = {"": (None, Pace("starting", time.monotonic()))}

    def hear(self, kind: str, step: Step, details: dict[str, Any]) -> float:
        """Hear of a change; how long the step took, where it ended."""
        now = time.monotonic()
        self._steps.pop("", None)
        if kind in ("started", "waiting"):
            label = f"waiting for {step.label}" if kind == "waiting" else step.label
            self._steps[step.key] = (step, Pace(label, now))
        elif kind == "shard" and step.key in self._steps and self._look(step) is None:
            self._steps[step.key][1].hear(StepProgress(details["done"], details["of"], "shards"), now)
        elif kind in _ENDS:
            self.ended += 1
            _, pace = self._steps.pop(step.key, (None, Pace("", now)))
            return now - pace.began
        return 0.0

    def look(self) -> list[Pace]:
        """What is under way, after a look at what each says."""
        found = list(self._steps.values())
        for step, pace in found:
            pace.hear(self._look(step) if step is not None else None, time.monotonic())
        return [pace for _, pace in found]


@contextmanager
def plain_lines(plan: Sequence[Planned], say: Say, look: Look) -> Iterator[Emit]:
    """A line for each step that ends and each shard that is made, and for what takes long one every 30 seconds."""
    flights, lock = _Flights(plan, look), threading.Lock()

    def emit(kind: str, step: Step, details: dict[str, Any]) -> None:
        with lock:
            took = flights.hear(kind, step, details)
            if line := _line(kind, step, details):
                count = f"{flights.ended:>{len(str(flights.total))}} of {flights.total}  " if kind in _ENDS else ""
                say(f"  {count}{line}" + (f", {duration(took)}" if took >= FIRST_SECONDS else ""))

    def tell() -> None:
        with lock:
            now = time.monotonic()
            late = [pace for pace in flights.look() if pace.is_due(now)]
            for pace in late[:_MOST]:
                say(f"  {pace.line(now)}")
            if len(late) > _MOST:
                say(f"  and {len(late) - _MOST} more steps are running")

    if flights.total:
        say(f"  {flights.cached} steps are cached, {flights.total} to run")
        with looking(tell):
            yield emit
    else:
        yield emit


@contextmanager
def live_display(plan: Sequence[Planned], say: Say, look: Look, console: Console | None = None) -> Iterator[Emit]:
    """Steps done of total, and for each that is under way how far it is; failures stay on the screen as lines."""
    flights = _Flights(plan, look)
    if not flights.total:
        with plain_lines(plan, say, look) as nothing:
            yield nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
    from rich.table import Column

    # Labels are a user's text: no markup in them.
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2)),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[amount]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[note]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=3)
        ),
    )
    bars = Progress(*columns, console=console or Console(stderr=True), transient=True, expand=True)
    shown: dict[Pace, TaskID] = {}
    lock = threading.Lock()

    def rows() -> None:
        with lock:
            now = time.monotonic()
            under_way = [pace for pace in flights.look() if now - pace.began >= _SHOWN_SECONDS]
            for pace in [pace for pace in shown if pace not in under_way[:_MOST]]:
                bars.remove_task(shown.pop(pace))
            for pace in under_way[:_MOST]:
                if pace not in shown:
                    shown[pace] = bars.add_task(pace.label, total=None, amount="", note="")
                    bars.tasks[-1].start_time = bars.get_time() - (now - pace.began)
                said = pace.told
                notes = [part for part in (pace.speed(now), said.note if said is not None else "") if part]
                bars.update(shown[pace], amount=pace.amount(), note="; ".join(notes))
                if said is not None:
                    bars.update(shown[pace], total=said.of or None, completed=said.done)
            more = f", {len(under_way) - _MOST} more running" if len(under_way) > _MOST else ""
            amount = f"{flights.ended}/{flights.total} steps"
            bars.update(whole, completed=flights.ended, amount=amount, note=f"{flights.cached} cached{more}")

    def emit(kind: str, step: Step, details: dict[str, Any]) -> None:
        with lock:
            flights.hear(kind, step, details)
        if kind in ("waiting", "stalled", "failed", "skipped"):
            bars.console.print(f"  {_line(kind, step, details)}", markup=False, highlight=False)
        if kind in _ENDS:
            rows()

    with bars:
        whole = bars.add_task("run", total=flights.total, amount="", note="")
        with looking(rows):
            yield emit


def _line(kind: str, step: Step, details: dict[str, Any]) -> str:
    if kind == "shard":
        return f"{step.label}: shard {details['done']} of {details['of']}" if details["of"] > 1 else ""
    if kind == "ran":
        return f"ran      {step.label}"
    if kind == "waiting":
        return f"waiting  {step.label}: it is being computed by {details['holder']}"
    if kind == "stalled":
        return f"stalled  {step.label}: no heartbeat for {details['seconds']:g} s; another worker starts it again"
    if kind == "shared":
        return f"shared   {step.label}: computed by {details['holder']}"
    if kind == "failed":
        return f"FAILED   {step.label}: {details['error']}"
    if kind == "skipped":
        return f"skipped  {step.label}: {details['error']}"
    return ""
