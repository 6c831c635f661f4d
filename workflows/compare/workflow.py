"""What a workflow file asks for: a graph of steps, and how its results are read and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.tracking.mlflow_client import Status, TrackedRun
from workflows.compare.graph import Cell
from workflows.compare.results import read_result, truncations, without_validation
from workflows.compare.tracked_data import prediction_tables
from workflows.compare.tracking import tracked
from workflows.report.files import write_reports
from workflows.results.costs import Ledger
from workflows.results.model import Detail, Result
from workflows.results.verdicts import judged
from workflows.runtime.progress import Say

Results = Sequence[tuple[Result, Detail]]


class Job(Protocol):
    """A workflow file made into a graph."""

    @property
    def targets(self) -> list[Step]:
        """The final steps."""
        ...

    def results(self, store: Store, say: Say) -> Results:
        """What is there of the results; says what is damaged and leaves it out."""
        ...

    def with_earlier(self, results: Results, earlier: Results) -> Results:
        """Results, and those of an earlier time of the same run that are not there now."""
        ...

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """Write what the record of a run holds beside its results, before it is tracked; says what is damaged."""
        ...

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        """The MLflow run, and its children; says what is damaged and leaves it out."""
        ...

    def notes(self, store: Store, ran: bool) -> list[str]:
        """What a reader of the results should know; `ran`: whether anything was computed just now."""
        ...

    def deliver(self, store: Store, results: Results) -> list[str]:
        """Leave what the user asked for outside the store, once everything is done; says what."""
        ...


@dataclass(frozen=True)
class Comparison:
    """Methods on tasks under models."""

    cells: list[Cell]

    @property
    def targets(self) -> list[Step]:
        return [step for cell in self.cells for step in (cell.score, cell.versus, cell.best) if step is not None]

    def results(self, store: Store, say: Say) -> Results:
        ledger = Ledger(store)
        return judged([found for cell in self.cells if (found := _result(cell, ledger, say))])

    def with_earlier(self, results: Results, earlier: Results) -> Results:
        """By the places of its own cells, since a method may have got another name; verdicts are over all of them."""
        found = {result.place: (result, detail) for result, detail in (*earlier, *results)}
        return judged([found[cell.place] for cell in self.cells if cell.place in found])

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """The reports and the tables of predictions, where there is a result."""
        if results:
            write_reports(record, store)
            for name, predictions in prediction_tables(self.cells, store, say):
                record.write(name, predictions)

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        return tracked(record, store, self.cells, results, status, say)

    def notes(self, store: Store, ran: bool) -> list[str]:
        return [*without_validation(self.cells, store), *truncations(self.cells, store)] if ran else []

    def deliver(self, store: Store, results: Results) -> list[str]:
        return []


def _result(cell: Cell, ledger: Ledger, say: Say) -> tuple[Result, Detail] | None:
    """A cell's result; one that is damaged is named and left out, the others are shown."""
    try:
        return read_result(cell, ledger)
    except DamagedArtifact as error:
        say(f"no result of {cell.model} {cell.task} {cell.method}: {error}")
        return None
