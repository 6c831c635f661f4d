"""The kind `layers`: a layer study, how its results are read and shown, and what its file names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import Status, TrackedRun
from workflows.compare.checks import check_parts
from workflows.compare.tracked_data import data_of
from workflows.config.compare import MethodConfig
from workflows.config.layer_study import LayersConfig
from workflows.errors import ConfigError
from workflows.findings import Checking
from workflows.kind import Names, Results, WorkflowKind
from workflows.layers.graph import Study, studies
from workflows.layers.page import FORMS, PLOTS, plots
from workflows.layers.results import (
    LayerResults,
    Reading,
    aligned,
    columns,
    last_results,
    layer_table,
    read_study,
    steering_table,
)
from workflows.methods.resolved import resolve
from workflows.report.files import HTML, MARKDOWN, write_whole
from workflows.results.model import by_place
from workflows.results.table import table
from workflows.runtime.progress import Say
from workflows.steps.layers.readings import BY_ROWS, BY_STATES, CALIBRATED

LAYERS_FILE = "layers.json"  # in the record of a run


@dataclass(frozen=True)
class LayerStudy:
    """Tasks under models, layer by layer."""

    config: LayersConfig
    parts: list[Study]

    @property
    def targets(self) -> list[Step]:
        return [step for part in self.parts for step in (part.scores, part.steering) if step is not None]

    def results(self, store: Store, say: Say) -> Results:
        """The last layer's, as any comparison has them; all layers' are `notes` and `document`."""
        return [one for found in self.found(store, say) for one in last_results(found, self.config.seed)]

    def found(self, store: Store, say: Say) -> Iterator[LayerResults]:
        """Each task under each model, as far as it is there; says what is damaged."""
        for part in self.parts:
            try:
                if (found := read_study(part, store)) is not None:
                    yield found
            except DamagedArtifact as error:
                say(f"no layers of {part.model} {part.task}: {error}")

    def with_earlier(self, results: Results, earlier: Results) -> Results:
        return list(by_place((*earlier, *results)).values())

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """The report, and the plots as files."""
        if found := list(self.found(store, say)):
            record.write(LAYERS_FILE, [asdict(one) for one in found])
            for form, name in (("html", HTML), ("markdown", MARKDOWN)):
                write_whole(FORMS[form](found), record.folder / name)
            for name, chart in plots(found):
                write_whole(chart, record.folder / name)

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        found = list(self.found(store, lambda _: None))  # what is damaged `results` has told
        files = [record.folder / name for name in ("workflow.yaml", HTML)]
        parent = TrackedRun(
            key=record.run_id,
            name=f"layers {' '.join(dict.fromkeys(part.task for part in self.parts))}",
            status=status,
            params={
                "models": ", ".join(self.config.models),
                "tasks": ", ".join(self.config.tasks),
                "bases": ", ".join(self.config.bases),
            },
            metrics={f"{result.model}/{result.task}/{result.method}": result.mean for result, _ in results},
            series={name: points for one in found for name, points in self._series(one).items()},
            tags={
                "vocabsem.workflow": "layers",
                "vocabsem.run_id": record.run_id,
                "vocabsem.record": str(record),
            },
            note=table(results) if results else "",
            tables={f"layers-{one.model}-{one.task}.json": self._rows(one) for one in found},
            data=tuple(dict.fromkeys(one for part in self.parts for one in data_of(part.task, part.rows, part.scores))),
            files=tuple(path for path in (*files, *sorted(record.folder.glob(PLOTS))) if path.is_file()),
        )
        return parent, ()

    def _series(self, found: LayerResults) -> dict[str, list[tuple[int, float]]]:
        """Reading -> its number by layer; a tracker draws them over layers."""
        series: dict[str, list[tuple[int, float]]] = {}
        for basis in found.bases:
            for place, row in enumerate(found.of(basis)):
                for one in columns(found):
                    if (value := one.of(row)) is not None:
                        name = f"by layer/{found.model}/{found.task}/{basis}/{one.name}"
                        series.setdefault(name, []).append((place, value))
        return series

    def _rows(self, found: LayerResults) -> list[dict[str, Any]]:
        """A row for each layer and basis."""
        shown = columns(found)
        return [
            {"layer": row["layer"], "basis": row["basis"], **{one.name: one.of(row) for one in shown}}
            for row in found.layers
        ]

    def notes(self, store: Store, ran: bool) -> list[str]:
        """The table of layers by each basis, what its columns mean, and the steering check."""
        lines: list[str] = []
        shown: list[Reading] = []
        for found in self.found(store, lambda _: None):
            shown = columns(found)
            where = f"{found.task}   ({found.metric}, {found.n_test} test rows, model {found.model})"
            for basis in found.bases:
                lines += [f"{where}, basis {basis}", *aligned(layer_table(found, basis, shown)), ""]
            if found.steering:
                heading = f"{where}, steering by {self.config.steering.length:g} of the state's length"
                lines += [heading, *aligned(steering_table(found), words=2), ""]
        if lines:
            lines += [f"{one.heading}: {one.meaning}" for one in shown]
        return lines

    def document(self, store: Store) -> dict[str, Any]:
        """A record for each layer and basis, with intervals, and for each move."""
        return {
            "layers": [
                {
                    "model": one.model,
                    "task": one.task,
                    "metric": one.metric,
                    "layers": list(one.layers),
                    "steering": list(one.steering),
                }
                for one in self.found(store, lambda _: None)
            ]
        }

    def deliver(self, store: Store, results: Results) -> list[str]:
        return []


def _job(config: LayersConfig, base: Path, data_dir: Path | None, facts: FingerprintCache, store: Store) -> LayerStudy:
    return LayerStudy(config, studies(config, base, data_dir, facts))


def _names(config: LayersConfig) -> Names:
    return Names(
        models=tuple((("models", index), name) for index, name in enumerate(config.models)),
        tasks=tuple((("tasks", index), name) for index, name in enumerate(config.tasks)),
    )


def _check(config: LayersConfig, checking: Checking) -> None:
    """As a comparison of the methods that are read at each layer."""
    methods = [((), resolve(MethodConfig(method=name), checking.base)) for name in (*BY_ROWS, *BY_STATES, CALIBRATED)]
    check_parts(_names(config), methods, config.encoding, config.limit, checking)


def _write_report(record: RunRecord, store: Store, form: str, place: Path) -> None:
    """Write one form of a study's report. Raises ConfigError for one that it does not have."""
    kept = record.read(LAYERS_FILE)
    if not kept:
        raise ConfigError(f"run {record.run_id} has no results yet; run its workflow again")
    if form not in FORMS:
        raise ConfigError(f"a layer study has no {form} report; it has {', '.join(FORMS)}")
    write_whole(FORMS[form]([LayerResults(**one) for one in kept]), place)


LAYERS = WorkflowKind("layers", LayersConfig, _job, _names, _check, report=_write_report)
