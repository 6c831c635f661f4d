"""One run of a workflow file: plan it, run it, read the results, project them to MLflow."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import StoreError, Unwritable
from orchestration.execution.disk_space import DiskRoom
from orchestration.execution.scheduler import Outcome, run_plan
from orchestration.graph import Step, in_order, run_id_of
from orchestration.runs.plan import Planned, make_plan
from orchestration.runs.record import RunRecord, open_run
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.projection import fill, is_filled, is_finished, shown, write_projection
from orchestration.tracking.registry import open_tracker
from orchestration.tracking.tracker import Shown, Status, Tracker, TrackingError
from workflows.config.yaml_file import naming_lines
from workflows.errors import ConfigError, Interrupted
from workflows.kind import Job, Results, WorkflowConfig
from workflows.registry import kind_of
from workflows.results.model import read_stored, stored
from workflows.runtime.engines import check_reserves, checked_engine, open_engine
from workflows.runtime.interruption import Course
from workflows.runtime.pace import telling
from workflows.runtime.progress import Say, Watching, looking_in, plain_lines

ORIGIN = "origin.json"  # of a run: where its workflow file lay, so that its fits can be used later

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A workflow's text and the folder that its relative paths start from.

    Attributes:
        file: where the text was read; None for fields that were given in Python.
    """

    text: str
    base: Path
    file: Path | None = None


def source_of(file: Path) -> Source:
    """A workflow file as a source."""
    return Source(file.read_text(encoding="utf-8"), file.parent.resolve(), file)


@dataclass(frozen=True)
class Session:
    """A workflow file made into a graph, on a store. `data_dir`: the folder of `--data-dir`."""

    config: WorkflowConfig
    source: Source
    data_dir: Path | None
    store: Store
    job: Job
    tracker: Tracker

    def plan(self) -> list[Planned]:
        return make_plan(self.job.targets, self.store)


@dataclass(frozen=True)
class RunSummary:
    """What a run came to. `shown`: where MLflow shows it; `warnings`: what a reader should see after the results."""

    run_id: str
    counts: dict[str, int]
    failures: list[tuple[str, Outcome]]
    results: Results
    notes: list[str]
    shown: Shown | None
    warnings: tuple[str, ...] = ()

    @property
    def mlflow_run_id(self) -> str | None:
        return self.shown.run_id if self.shown else None


def open_session(
    config: WorkflowConfig, workflow: Path | Source, store: Store, data_dir: Path | None, tracking_uri: str | None
) -> Session:
    """Resolve a workflow, a file or a source, against a store; raises ConfigError for what cannot be found."""
    source = source_of(workflow) if isinstance(workflow, Path) else workflow
    base, facts = source.base, FingerprintCache(store.root / "facts.json")
    with naming_lines(source.file):
        job = kind_of(config).job(config, base, data_dir, facts, store)
        check_reserves(config.execution, {step.name for step in in_order(job.targets)})
    return Session(config, source, data_dir, store, job, open_tracker(tracking_uri, store.root))


def run(session: Session, say: Say, watching: Watching = plain_lines, advice: str = "") -> RunSummary:
    """Run what is not cached, and say how it goes. Files come first: a dead MLflow server costs nothing.

    `advice`: how to go on after an interruption, for a person.
    Where nothing is to be done, a store that this user can only read is enough. Raises Interrupted as `_recorded`.
    """
    try:
        return _recorded(session, say, watching, advice)
    except Unwritable as error:
        plan = session.plan()
        if any(planned.state != "cached" for planned in plan):
            raise
        counts = {"ran": 0, "cached": len(plan), "failed": 0}
        results, warning = session.job.results(session.store, say), f"this run is not recorded: {error}"
        return RunSummary(run_id_of(session.job.targets), counts, [], results, _drifted(plan), None, (warning,))


def _recorded(session: Session, say: Say, watching: Watching, advice: str) -> RunSummary:
    """The run, with its record in the store.

    Raises Interrupted where a signal asked for an end, with everything in order for the next time. A person is told
    before workers are ended and before MLflow is told: whoever ends a job may not wait for that.
    """
    # First: what it reaches is safe from gc now.
    record = open_run(session.store, session.job.targets, session.source.text)
    _tell_origin(record, session)
    plan = session.plan()
    _log.debug("run %s: %d steps, %d to run, in %s", record.run_id, len(plan), len(_to_run(plan)), session.store)
    course = Course(plan, session.store, advice)
    missing: list[str] = []
    try:
        outcomes, results, warning = _carry_out(session, record, plan, missing, course, say, watching)
    except KeyboardInterrupt:
        course.tell(say)
        _break_off(session, record, plan, missing, "KILLED", say)
        raise Interrupted(course.text(), said=True) from None
    except BaseException:  # a cluster that does not answer
        _break_off(session, record, plan, missing, "FAILED", say)
        raise
    record.push()
    failures = [(planned.step.label, end) for planned in plan if (end := outcomes[planned.step.key]).state == "failed"]
    counts = _counts(outcomes)
    delivered = [] if counts["failed"] else session.job.deliver(session.store, results)
    return RunSummary(
        record.run_id,
        counts,
        failures,
        results,
        _drifted(plan) + session.job.notes(session.store, bool(counts["ran"])) + delivered,
        shown(record, session.tracker),
        (warning,) if warning else (),
    )


def _tell_origin(record: RunRecord, session: Session) -> None:
    """Note where the workflow file lies, where the record does not say so."""
    data_dir = session.data_dir
    told = {"folder": str(session.source.base), "data_dir": str(data_dir) if data_dir is not None else None}
    if record.read(ORIGIN) != told:
        record.write(ORIGIN, told)


def _carry_out(
    session: Session,
    record: RunRecord,
    plan: Sequence[Planned],
    missing: list[str],
    course: Course,
    say: Say,
    watching: Watching,
) -> tuple[dict[str, Outcome], Results, str | None]:
    """Run a plan, and record and track what came of it; with a warning where MLflow was not told.

    `missing` hears what a cluster would lack.
    """
    steps = _to_run(plan)
    if steps and _track(session, record, [], "RUNNING", say):
        missing.append(_mlflow_is_missing(session))
    with watching(plan, say, looking_in(session.store)) as watch:
        room = DiskRoom(session.store.root, say, "`vocabsem gc --dry-run` shows what could go")

        def emit(kind: str, step: Step, details: dict[str, Any]) -> None:
            course.hear(kind, step, details)
            record.event(kind, step, details)
            watch(kind, step, details)
            if kind == "interrupted" and not details["more"]:
                say("stopping; what is done is kept (the same signal again ends it at once)")
                course.tell(say)
            room.look()

        execution = session.config.execution
        outcomes = run_plan(plan, lambda: open_engine(execution, session.store, steps, missing, emit, say), emit)
    results = session.job.results(session.store, say)
    known = read_stored(record.read("results.json") or [])  # a run that fails now may have been done before
    kept = session.job.with_earlier(results, known)
    record.write("results.json", stored(kept))
    failed = any(outcome.state in ("failed", "skipped") for outcome in outcomes.values())
    counts = _counts(outcomes)
    if counts["ran"]:
        record.write_made([key for key, outcome in outcomes.items() if outcome.state == "ran"])
    if counts["ran"] or failed or not is_finished(record, session.tracker):
        session.job.add_to_record(record, session.store, kept, say)
        return outcomes, results, _track(session, record, results, "FAILED" if failed else "FINISHED", say)
    return outcomes, results, None


def _break_off(
    session: Session, record: RunRecord, plan: Sequence[Planned], missing: Sequence[str], status: Status, say: Say
) -> None:
    """No run stays RUNNING for ever. One with nothing to run was not told as that, and may stand there as done.

    An MLflow that was away at the beginning is not waited for again; `vocabsem sync` tells it, and so does a line to
    one who interrupted the run.
    """
    if not _to_run(plan):
        return
    with suppress(StoreError):  # what went wrong first is told
        if missing:
            write_projection(
                record, session.config.experiment, *session.job.tracked(record, session.store, [], status, say)
            )
            warning = f"warning: {missing[0]}" if status == "KILLED" else None
        elif warning := _track(session, record, [], status, say):
            warning = f"warning: {warning}"
        if warning:
            say(warning)
        record.push()


def preflight(session: Session, say: Say) -> None:
    """Ask the cluster of the workflow file whether it has what the steps that would run need.

    Raises ClusterError with all that is missing.
    """
    if session.config.execution.address is None:
        raise ConfigError("no cluster is named; give --address HOST:PORT, or `address` under `execution`")
    try:
        session.tracker.check_writable(session.config.experiment)
        missing = []
    except TrackingError:
        missing = [_mlflow_is_missing(session)]
    steps = _to_run(session.plan())
    checked_engine(session.config.execution, session.store, steps, missing, lambda *_: None, say).close()


def _to_run(plan: Sequence[Planned]) -> list[Step]:
    return [planned.step for planned in plan if planned.state == "run"]


def _mlflow_is_missing(session: Session) -> str:
    return (
        f"MLflow at {session.tracker.name} cannot be written from the driver. Start it, give "
        "another --mlflow, or leave it out: results are files first, and `vocabsem sync` fills MLflow in later."
    )


def _drifted(plan: Sequence[Planned]) -> list[str]:
    """A line where results are cached that other code made."""
    count = sum(planned.state == "cached" and bool(planned.why) for planned in plan)
    return [f"{count} cached steps were made by code that has changed since; see `vocabsem plan`"] if count else []


def _counts(outcomes: dict[str, Outcome]) -> dict[str, int]:
    """A step skipped because an input is missing counts as failed: it was asked for and is not there."""
    states = Counter(outcome.state for outcome in outcomes.values())
    return {"ran": states["ran"], "cached": states["cached"], "failed": states["failed"] + states["skipped"]}


def _track(session: Session, record: RunRecord, results: Results, status: Status, say: Say) -> str | None:
    """Write what MLflow shall hold, and tell it unless that was done; a warning where that could not be.

    At the beginning it is told in any case: of a run that was killed it knew, and may be gone since.
    """
    tracked = session.job.tracked(record, session.store, results, status, say)
    write_projection(record, session.config.experiment, *tracked)
    if status == "RUNNING" or not is_filled(record, session.tracker):
        try:
            fill(record, session.tracker, telling("MLflow", "runs", say))
        except TrackingError as error:
            return (
                f"{error}. The results are safe in {record}; when MLflow is back, fill it in with "
                "`vocabsem sync` (and the same --store and --mlflow)."
            )
    return None
