"""Filling MLflow from the records of runs; neither workflow files nor models are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestration.runs.lookup import find_run
from orchestration.runs.record import RunRecord, runs
from orchestration.store.artifacts import Store
from orchestration.tracking.projection import fill, is_begun, is_filled, mlflow_run_id
from orchestration.tracking.tracker import ExperimentDeleted, Tracker
from workflows.runtime.pace import telling
from workflows.runtime.progress import Say

_GONE = "its files are missing; run the workflow again to recompute them"
_SHOWN = 3  # names


@dataclass(frozen=True)
class Synced:
    """What became of a run: filled in, complete already, without anything to track yet, or refused by MLflow.

    Attributes:
        why: of a refusal; the runs of other experiments are filled in all the same.
        without: names of its MLflow runs whose model is left out, since its files are gone.
    """

    run_id: str
    state: Literal["filled", "complete", "empty", "refused"]
    mlflow_run_id: str | None
    without: tuple[str, ...] = ()
    why: str = ""


def sync(store: Store, tracker: Tracker, run: str | None, say: Say) -> Iterator[Synced]:
    """Fill in one run whatever was told before, or every run that this MLflow was not told all of, the oldest first.

    `say`: hears how far a large one is.

    Raises StoreError for an unknown run, TrackingError where MLflow cannot be used.
    """
    if run is not None:
        record = find_run(run, store)
        yield _filled(record, tracker, say)
        return
    for record in reversed(runs(store)):
        record.download()
        if not is_begun(record):
            yield Synced(record.run_id, "empty", None)
        elif is_filled(record, tracker):
            yield Synced(record.run_id, "complete", mlflow_run_id(record))
        else:
            try:
                yield _filled(record, tracker, say)
            except ExperimentDeleted as error:
                yield Synced(record.run_id, "refused", None, why=str(error))


def _filled(record: RunRecord, tracker: Tracker, say: Say) -> Synced:
    filled = fill(record, tracker, telling(f"run {record.run_id}", "MLflow runs", say))
    return Synced(record.run_id, "filled", filled.run_id, filled.without)


def synced_text(done: Sequence[Synced]) -> str:
    """What was done, for a person to read."""
    what = {
        "filled": "filled in",
        "complete": "was already complete",
        "empty": "nothing to track yet: run its workflow again",
        "refused": "not filled in: ",
    }
    lines = [
        f"run {entry.run_id}   {what[entry.state]}{entry.why}"
        + (f", MLflow run {entry.mlflow_run_id}" if entry.mlflow_run_id else "")
        + (f", without the model of {_names(entry.without)}: {_GONE}" if entry.without else "")
        for entry in done
    ]
    return "\n".join([*lines, f"{sum(entry.state == 'filled' for entry in done)} of {len(done)} runs filled in"])


def _names(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN], *([f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])])
