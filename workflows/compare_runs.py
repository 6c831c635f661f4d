"""A comparison as MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.runs import RunRecord
from orchestration.store import Store
from orchestration.tracking import TrackedModel, TrackedRun, note
from workflows.compare import Cell
from workflows.progress import Say
from workflows.report.files import HTML, MARKDOWN
from workflows.results import Detail, Result, largest, sized
from workflows.serving import tracked_model
from workflows.table import table
from workflows.tracked_data import data_of

_TABLES = "mlflow.loggedArtifacts"


def tracked(
    record: RunRecord,
    store: Store,
    cells: Sequence[Cell],
    results: Sequence[tuple[Result, Detail]],
    status: Any,
    say: Say,
) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
    """The MLflow runs of a comparison: a parent with the summary, and a child for each fit."""
    details = {result.place: detail for result, detail in results}
    children = [
        _child(record, store, cell, seed, details[cell.place], say)
        for cell in cells
        if cell.place in details
        for seed in cell.fits
    ]
    metrics = {_metric(result, _one_model(cells), largest(results)): result.mean for result, _ in results}
    done = results and status == "FINISHED"
    predictions = sorted(path.name for path in Path(record.folder).glob("predictions-*.json")) if done else []
    shown = ("workflow.yaml", *((HTML, MARKDOWN, *predictions) if done else ()))
    parent = TrackedRun(
        key=record.run_id,
        name=f"compare {record.run_id[:8]}",
        status=status,
        params={
            "models": _names(c.model for c in cells),
            "tasks": _names(c.task for c in cells),
            "methods": _names(c.method for c in cells),
        },
        metrics=metrics,
        tags={
            "vocabsem.workflow": "compare",
            "vocabsem.run_id": record.run_id,
            "vocabsem.record": str(record),
            **({_TABLES: _named_tables(["results.json", *predictions])} if done else {}),
            **(note(table(results)) if results else {}),
        },
        tables={"results.json": [_row(*found) for found in results]} if done else {},
        files=tuple(path for name in shown if (path := Path(record.folder / name)).is_file()),
        data=tuple(dict.fromkeys(one for cell in cells for one in data_of(cell.task, cell.score))),
    )
    return parent, tuple(children)


def _named_tables(names: Sequence[str]) -> str:
    """What tells MLflow that artifacts are tables, which it then shows as such and side by side."""
    return json.dumps([{"path": name, "type": "table"} for name in names])


def _metric(result: Result, one_model: bool, size: int | str) -> str:
    parts = [*([] if one_model else [result.model]), result.task, result.method]
    return "/".join([*parts, *(sized(result.train_size) if result.train_size != size else [])])


def _row(result: Result, detail: Detail) -> dict[str, Any]:
    """A line of the table in MLflow, whose comparison of runs groups by the first column and shows the second."""
    return {
        "result": " / ".join([result.model, result.task, result.method, *sized(result.train_size)]),
        "score": f"{result.mean:.3f} ({result.low:.3f} to {result.high:.3f})",
        **{name: value for name, value in asdict(result).items() if name != "seeds"},
        "seeds": " ".join(map(str, result.seeds)),
        "trained_weights": detail.trained_weights,
        "total_seconds": detail.costs.total,
        "marginal_seconds": detail.costs.marginal,
        "verdict": detail.versus.verdict if detail.versus else "",
        "versus": f"{detail.versus.mean:+.3f} to {detail.versus.reference}" if detail.versus else "",
        "p_holm": detail.versus.p_holm if detail.versus else None,
    }


def _child(record: RunRecord, store: Store, cell: Cell, seed: int, detail: Detail, say: Say) -> TrackedRun:
    place = sorted(cell.fits).index(seed)  # the order of `by_seed`
    metrics = {name: score["by_seed"][place] for name, score in detail.scores.items()}
    seeds = {"seed": str(seed)} if len(cell.fits) > 1 else {}
    settings = {name: str(value) for name, value in detail.settings[seed].items()}
    return TrackedRun(
        key=f"{record.run_id}:{cell.fits[seed].key}",
        name=" ".join([cell.method, cell.task, *sized(cell.train_size), *(f"seed {seed}" for _ in seeds)]),
        status="FINISHED",
        params={
            "model": cell.model,
            "task": cell.task,
            "method": cell.method,
            "train_size": str(cell.train_size),
            **seeds,
            **settings,
        },
        metrics={
            **metrics,
            "trained_weights": float(detail.trained_weights),
            **{f"{name}_seconds": value for name, value in _seconds(detail).items() if value is not None},
        },
        tags={
            "vocabsem.run_id": record.run_id,
            "vocabsem.method": cell.method,
            "vocabsem.task": cell.task,
            "vocabsem.model": cell.model,
        },
        model=_model(cell.fits[seed], store, say),
        data=data_of(cell.task, cell.score),
    )


def _model(fit: Step, store: Store, say: Say) -> TrackedModel | None:
    """The model of a fit; one that is damaged is named and left out."""
    try:
        return tracked_model(fit, store)
    except DamagedArtifact as error:
        say(f"no MLflow model of {fit.label}: {error}")
        return None


def _seconds(detail: Detail) -> dict[str, float | None]:
    return {"fit": detail.costs.fit, "total": detail.costs.total, "marginal": detail.costs.marginal}


def _one_model(cells: Sequence[Cell]) -> bool:
    return len({cell.model for cell in cells}) == 1


def _names(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))
