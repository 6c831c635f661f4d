"""The kind `compare`: a comparison of methods, how its results are read and shown, and what its file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import Status, TrackedRun
from workflows.compare.candidates import candidates
from workflows.compare.checks import check_comparison, names_of
from workflows.compare.graph import Cell, comparison
from workflows.compare.results import read_result, remarks
from workflows.compare.tracked_data import prediction_tables
from workflows.compare.tracking import tracked
from workflows.config.compare import CompareConfig
from workflows.kind import Results, WorkflowKind
from workflows.report.files import write_report, write_reports
from workflows.results.costs import Ledger
from workflows.results.model import Found, by_place
from workflows.results.verdicts import judged
from workflows.runtime.progress import Say


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
        found = by_place((*earlier, *results))
        return judged([found[cell.place] for cell in self.cells if cell.place in found])

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """The reports and the tables of predictions, where there is a result."""
        if results:
            write_reports(record, store, results)
            for name, predictions in prediction_tables(self.cells, store, say):
                record.write(name, predictions)

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        return tracked(record, store, self.cells, results, status, say)

    def notes(self, store: Store, ran: bool) -> list[str]:
        return remarks(self.cells, store) if ran else []

    def document(self, store: Store) -> dict[str, Any]:
        return {}

    def deliver(self, store: Store, results: Results) -> list[str]:
        return []


def _result(cell: Cell, ledger: Ledger, say: Say) -> Found | None:
    """A cell's result; one that is damaged is named and left out, the others are shown."""
    try:
        return read_result(cell, ledger)
    except DamagedArtifact as error:
        say(f"no result of {cell.model} {cell.task} {cell.method}: {error}")
        return None


def _job(config: CompareConfig, base: Path, data_dir: Path | None, facts: FingerprintCache, store: Store) -> Comparison:
    return Comparison(comparison(config, base, data_dir, facts))


COMPARE = WorkflowKind(
    "compare", CompareConfig, _job, names_of, check_comparison, report=write_report, candidates=candidates
)
