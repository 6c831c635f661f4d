"""One run of a workflow file: plan it, run it, read the results, project them to MLflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.executor import Engine, InlineEngine, Outcome, run_plan
from orchestration.facts import Facts
from orchestration.graph import Step
from orchestration.plan import Planned, make_plan
from orchestration.projection import fill, is_filled, mlflow_run_id, write_projection
from orchestration.runs import RunRecord, open_run
from orchestration.store import Store
from orchestration.tracking import TrackingError, default_uri
from workflows.compare import Cell, comparison
from workflows.config import CompareConfig, Execution
from workflows.progress import Say, Watching, plain_lines
from workflows.report import Detail, Result, read_result, stored, tracked, truncations
from workflows.yaml_file import naming_lines


@dataclass(frozen=True)
class Session:
    """A workflow file made into a graph, on a store."""

    config: CompareConfig
    text: str
    store: Store
    cells: list[Cell]
    tracking_uri: str

    @property
    def targets(self) -> list[Step]:
        return [cell.score for cell in self.cells]

    def plan(self) -> list[Planned]:
        return make_plan(self.targets, self.store)


@dataclass(frozen=True)
class Report:
    """What a run came to."""

    run_id: str
    counts: dict[str, int]
    failures: list[tuple[str, Outcome]]
    results: list[tuple[Result, Detail]]
    notes: list[str]
    mlflow_run_id: str | None


def open_session(
    config: CompareConfig, path: Path, store: Store, data_dir: Path | None, tracking_uri: str | None
) -> Session:
    """Resolve a workflow file against a store; raises ConfigError for what cannot be found."""
    with naming_lines(path):
        cells = comparison(config, path.parent.resolve(), data_dir, Facts(store.root / "facts.json"))
    return Session(config, path.read_text(encoding="utf-8"), store, cells, tracking_uri or default_uri(store.root))


def run(session: Session, execution: Execution, say: Say, watching: Watching = plain_lines) -> Report:
    """Run what is not cached, and say how it goes. Files come first: a dead MLflow server costs nothing."""
    plan = session.plan()
    record = open_run(session.store, session.targets, session.text)
    if any(planned.state == "run" for planned in plan):
        _track(session, record, [], "RUNNING", say)

    with watching(plan, say) as watch:

        def emit(kind: str, step: Step, details: dict[str, Any]) -> None:
            record.event(kind, step, details)
            watch(kind, step, details)

        try:
            outcomes = run_plan(plan, lambda: _engine(session.store, execution, emit), emit)
        except BaseException:  # a cluster that does not answer, Ctrl-C: no run stays RUNNING for ever
            _track(session, record, [], "FAILED", say)
            raise
    results = [found for cell in session.cells if (found := _result(cell, session.store, say))]
    record.write("results.json", stored(results))
    failed = any(outcome.state in ("failed", "skipped") for outcome in outcomes.values())
    mlflow_run_id = _track(session, record, results, "FAILED" if failed else "FINISHED", say)
    labels = {planned.step.key: planned.step.label for planned in plan}
    return Report(
        record.run_id,
        _counts(outcomes),
        [(labels[key], outcome) for key, outcome in outcomes.items() if outcome.state == "failed"],
        results,
        _notes(session, plan, outcomes),
        mlflow_run_id,
    )


def _result(cell: Cell, store: Store, say: Say) -> tuple[Result, Detail] | None:
    """A cell's result; one that is damaged is named and left out, the others are shown."""
    try:
        return read_result(cell, store)
    except DamagedArtifact as error:
        say(f"no result of {cell.model} {cell.task} {cell.method}: {error}")
        return None


def _notes(session: Session, plan: Sequence[Planned], outcomes: dict[str, Outcome]) -> list[str]:
    """What a reader of the results should know: prompts that were cut, results of code that has changed since."""
    drifted = [planned.step.label for planned in plan if planned.state == "cached" and planned.why]
    notes = (
        [f"{len(drifted)} cached steps were made by code that has changed since; see `vocabsem plan`"]
        if drifted
        else []
    )
    return notes + (truncations(session.cells, session.store) if _counts(outcomes)["ran"] else [])


def _engine(store: Store, execution: Execution, emit: Any) -> Engine:
    if execution.executor == "inline":
        return InlineEngine(store, emit)
    from orchestration.ray_engine import RayEngine  # imports Ray: only when there is work

    return RayEngine(store, emit, execution.address)


def _counts(outcomes: dict[str, Outcome]) -> dict[str, int]:
    """A step skipped for want of an input counts as failed: it was asked for and is not there."""
    states = Counter(outcome.state for outcome in outcomes.values())
    return {"ran": states["ran"], "cached": states["cached"], "failed": states["failed"] + states["skipped"]}


def _track(
    session: Session, record: RunRecord, results: Sequence[tuple[Result, Detail]], status: Any, say: Say
) -> str | None:
    """Write what MLflow shall hold, and tell it unless that was done; the MLflow id, None where it never succeeded."""
    write_projection(record, session.config.experiment, *tracked(record, session.cells, results, status))
    if not is_filled(record, session.tracking_uri):
        try:
            return fill(record, session.tracking_uri)
        except TrackingError as error:
            say(
                f"warning: {error}. The results are safe in {record.folder}; when MLflow is back, fill it in with "
                "`vocabsem sync` (and the same --store and --mlflow)."
            )
    return mlflow_run_id(record)
