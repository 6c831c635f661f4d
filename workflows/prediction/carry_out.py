"""Steps that are no part of a run, carried out: what they make is kept, and goes with the next `vocabsem gc`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration.execution.scheduler import run_plan
from orchestration.graph import Step
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import Store
from workflows.config.compare import AnyExecution
from workflows.errors import Interrupted, StepsFailed
from workflows.runtime.engines import open_engine
from workflows.runtime.environment import how_to_go_on
from workflows.runtime.interruption import Course
from workflows.runtime.progress import Say, Watching, looking_in


def carry_out(targets: Sequence[Step], store: Store, execution: AnyExecution, say: Say, watching: Watching) -> None:
    """Make what is not there. Raises Interrupted, and StepsFailed with what went wrong."""
    plan = make_plan(targets, store)
    steps, course = [planned.step for planned in plan if planned.state == "run"], Course(plan, store)
    if not steps:
        return
    with watching(plan, say, looking_in(store)) as watch:

        def emit(kind: str, step: Step, details: dict[str, Any]) -> None:
            course.hear(kind, step, details)
            watch(kind, step, details)

        try:
            outcomes = run_plan(plan, lambda: open_engine(execution, store, steps, [], emit, say), emit)
        except KeyboardInterrupt:
            raise Interrupted(f"{course.text()}\n{how_to_go_on()}") from None
    failed = [(one.step.label, outcomes[one.step.key]) for one in plan if outcomes[one.step.key].state == "failed"]
    if failed:
        told = "\n".join(f"{label} failed: {outcome.error}" for label, outcome in failed)
        raise StepsFailed(told, 2 if all(outcome.exit_code == 2 for _, outcome in failed) else 1)
