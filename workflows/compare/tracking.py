"""A comparison as runs of a tracker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.tracking.tracker import Status, TrackedModel, TrackedRun, View
from workflows.compare.graph import Cell
from workflows.compare.tracked_data import data_of
from workflows.report.files import HTML, MARKDOWN
from workflows.results import columns
from workflows.results.document import flat_row
from workflows.results.model import Found, by_place, largest, sized
from workflows.results.table import table
from workflows.results.wording import score
from workflows.runtime.progress import Say

_VIEW = View(("model", "task", "method"), ("score", "seconds"), "score")
_NAMED = 3  # tasks or models in a run's name


def tracked(
    record: RunRecord,
    store: Store,
    cells: Sequence[Cell],
    results: Sequence[Found],
    status: Status,
    say: Say,
) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
    """The runs of a comparison: a parent with the summary, and a child for each fit."""
    found = by_place(results)
    children = [
        _child(record, store, cell, seed, found[cell.place], say)
        for cell in cells
        if cell.place in found
        for seed in cell.fits
    ]
    done = bool(results) and status == "FINISHED"
    best = _best(results) if done else None
    shown = ("workflow.yaml", *((HTML, MARKDOWN) if done else ()))
    parent = TrackedRun(
        key=record.run_id,
        name=f"{_short(c.task for c in cells)} with {_short(c.model for c in cells)}",
        status=status,
        params={
            "models": _names(c.model for c in cells),
            "tasks": _names(c.task for c in cells),
            "methods": _names(c.method for c in cells),
        },
        metrics=best.metrics if best else {},
        tags={
            "vocabsem.workflow": "compare",
            "vocabsem.run_id": record.run_id,
            "vocabsem.record": str(record),
            **({"best_method": best.name} if best else {}),
        },
        note=table(results) if results else "",
        tables={"results.json": [_row(found) for found in results]} if done else {},
        table_files=tuple(sorted(record.folder.glob("test-predictions-*.json"))) if done else (),
        files=tuple(path for name in shown if (path := record.folder / name).is_file()),
        data=tuple(dict.fromkeys(one for cell in cells for one in data_of(cell.task, cell.rows, cell.score))),
        view=_VIEW if done else None,
    )
    return parent, tuple(children)


@dataclass(frozen=True)
class _Best:
    """The method with the highest score, the mean over tasks where there are several."""

    name: str
    metrics: dict[str, float]


def _best(results: Sequence[Found]) -> _Best:
    size, models = largest(results), {result.model for result, _ in results}
    of: dict[tuple[str, str], list[Found]] = {}
    for result, detail in results:
        if result.train_size == size:
            of.setdefault((result.model, result.method), []).append((result, detail))
    means = {name: fmean(result.mean for result, _ in found) for name, found in of.items()}
    model, method = name = max(means, key=means.__getitem__)
    metrics = {"best_score": means[name], **columns.metrics(of[name])}
    return _Best(method if len(models) == 1 else f"{method} with {model}", metrics)


def _row(found: Found) -> dict[str, Any]:
    """A line of the table in MLflow, whose comparison of runs groups by the first column and shows the second."""
    result, _ = found
    cells = {name: value for name, value in flat_row(found).items() if not name.endswith("_by_seed")}  # lists
    return {
        "result": " / ".join([result.model, result.task, result.method, *sized(result.train_size)]),
        "score": score(result.mean, result.low, result.high),
        **cells,
        "seeds": " ".join(map(str, result.seeds)),
    }


def _child(record: RunRecord, store: Store, cell: Cell, seed: int, found: Found, say: Say) -> TrackedRun:
    _, detail = found
    place = sorted(cell.fits).index(seed)  # the order of `by_seed`
    metrics = {name: score["by_seed"][place] for name, score in detail.scores.items()}
    seeds = {"seed": str(seed)} if len(cell.fits) > 1 else {}
    # one param, since MLflow's charts draw an axis for each, of other methods too
    settings = ", ".join(f"{name}={value}" for name, value in detail.settings[seed].items())
    sizes = sized(cell.train_size)
    return TrackedRun(
        key=key_of_fit(record, cell.fits[seed]),
        name=" ".join([cell.method, cell.task, cell.model, *sizes, *(f"seed {seed}" for _ in seeds)]),
        status="FINISHED",
        params={
            "model": cell.model,
            "task": cell.task,
            "method": cell.method,
            **({"train_size": str(cell.train_size)} if sizes else {}),
            **seeds,
            **({"settings": settings} if settings else {}),
        },
        metrics={
            "score": metrics[cell.metric],
            **columns.metrics([found]),
            **{name: value for name, value in metrics.items() if name != cell.metric},
        },
        tags={
            "vocabsem.run_id": record.run_id,
            "vocabsem.method": cell.method,
            "vocabsem.task": cell.task,
            "vocabsem.model": cell.model,
            "vocabsem.metric": cell.metric,
        },
        model=_model(cell, cell.fits[seed], store, say),
        data=data_of(cell.task, cell.rows, cell.score),
        span=_span(cell.fits[seed], store),
    )


def key_of_fit(record: RunRecord, fit: Step) -> str:
    """What a tracker knows a fit of a run by."""
    return f"{record.run_id}:{fit.key}"


def _span(fit: Step, store: Store) -> tuple[int, int] | None:
    """When a fit began and ended, whenever MLflow hears of it."""
    try:
        artifact = store.find(fit)
        made = artifact.json("provenance.json") if artifact is not None else None
    except DamagedArtifact:
        return None
    if made is None:
        return None
    end = datetime.fromisoformat(made["finished"]).timestamp()
    return round((end - made["seconds"]) * 1000), round(end * 1000)


def _model(cell: Cell, fit: Step, store: Store, say: Say) -> TrackedModel | None:
    """The model of a fit; one that is damaged is named and left out."""
    try:
        return cell.extractor.served(fit, store)
    except DamagedArtifact as error:
        say(f"no MLflow model of {fit.label}: {error}")
        return None


def _names(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))


def _short(values: Any) -> str:
    found = list(dict.fromkeys(values))
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return ", ".join([*found[:_NAMED], *more])
