"""How a run shows that it goes on: a display on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from orchestration.executor import Emit
from orchestration.graph import Step
from orchestration.plan import Planned

if TYPE_CHECKING:
    from rich.console import Console

Say = Callable[[str], None]
Watching = Callable[[Sequence[Planned], Say], AbstractContextManager[Emit]]
_ENDS = ("ran", "shared", "failed", "skipped")


def watching_on(stream: TextIO) -> Watching:
    """What suits a stream."""
    return live_display if stream.isatty() else plain_lines


@contextmanager
def plain_lines(plan: Sequence[Planned], say: Say) -> Iterator[Emit]:
    """A line for each step that ends and each shard that is made."""

    def emit(kind: str, step: Step, details: dict[str, Any]) -> None:
        if line := _line(kind, step, details):
            say(line)

    yield emit


@contextmanager
def live_display(plan: Sequence[Planned], say: Say, console: Console | None = None) -> Iterator[Emit]:
    """Steps done of total, shards of the steps in flight, and the time; failures stay on the screen as lines."""
    total = sum(planned.state != "cached" for planned in plan)
    if not total:
        with plain_lines(plan, say) as emit:
            yield emit
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    # Labels are a user's text: no markup in them.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
    )
    bars = Progress(*columns, TimeElapsedColumn(), console=console or Console(stderr=True), transient=True)
    sharded: dict[str, TaskID] = {}
    with bars:
        steps = bars.add_task("run", total=total, unit="steps")

        def show(kind: str, step: Step, details: dict[str, Any]) -> None:
            if kind == "shard" and details["of"] > 1:
                if step.key not in sharded:
                    sharded[step.key] = bars.add_task(step.label, total=details["of"], unit="shards")
                bars.update(sharded[step.key], completed=details["done"])
            elif kind == "progress":
                if step.key not in sharded:
                    sharded[step.key] = bars.add_task(step.label, total=details["of"], unit="steps")
                bars.update(
                    sharded[step.key], completed=details["done"], description=f"{step.label}: {details['note']}"
                )
            elif kind in ("waiting", "stalled"):
                bars.console.print(_line(kind, step, details), markup=False, highlight=False)
            elif kind in _ENDS:
                bars.advance(steps)
                if step.key in sharded:
                    bars.remove_task(sharded.pop(step.key))
                if kind in ("failed", "skipped"):
                    bars.console.print(_line(kind, step, details), markup=False, highlight=False)

        yield show


def _line(kind: str, step: Step, details: dict[str, Any]) -> str:
    if kind == "shard":
        return f"  {step.label}: shard {details['done']} of {details['of']}" if details["of"] > 1 else ""
    if kind == "progress":
        return f"  {step.label}: {details['done']:,} of {details['of']:,}; {details['note']}"
    if kind == "ran":
        return f"  ran      {step.label}"
    if kind == "waiting":
        return f"  waiting  {step.label}: it is being made by {details['holder']}"
    if kind == "stalled":
        return f"  stalled  {step.label}: no sign of life for {details['seconds']:g} s; another worker begins anew"
    if kind == "shared":
        return f"  shared   {step.label}: made by {details['holder']}"
    if kind == "failed":
        return f"  FAILED   {step.label}: {details['error']}"
    if kind == "skipped":
        return f"  skipped  {step.label}: {details['error']}"
    return ""
