"""A comparison as MLflow runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestration.runs import RunRecord
from orchestration.store import Store
from orchestration.tracking import TrackedRun
from workflows.compare import Cell
from workflows.results import Detail, Result
from workflows.serving import tracked_model
from workflows.table import table


def tracked(
    record: RunRecord, store: Store, cells: Sequence[Cell], results: Sequence[tuple[Result, Detail]], status: Any
) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
    """The MLflow runs of a comparison: a parent with the summary, and a child for each fit."""
    details = {(result.model, result.task, result.method): (result, detail) for result, detail in results}
    children = [
        _child(record, store, cell, seed, details[(cell.model, cell.task, cell.method)][1])
        for cell in cells
        if (cell.model, cell.task, cell.method) in details
        for seed in cell.fits
    ]
    metrics = {
        f"{r.task}/{r.method}" if _one_model(cells) else f"{r.model}/{r.task}/{r.method}": r.mean for r, _ in results
    }
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
            "vocabsem.record": str(record.folder),
            **({"mlflow.note.content": f"```\n{table(results)}\n```"} if results else {}),  # shown on the run's page
        },
        tables={"results.json": [_row(*found) for found in results]} if results and status == "FINISHED" else {},
        files=tuple(path for name in ("workflow.yaml",) if (path := Path(record.folder / name)).is_file()),
    )
    return parent, tuple(children)


def _row(result: Result, detail: Detail) -> dict[str, Any]:
    """A line of the table in MLflow, whose comparison of runs groups by the first column and shows the second."""
    return {
        "result": f"{result.model} / {result.task} / {result.method}",
        "score": f"{result.mean:.3f} ({result.low:.3f} to {result.high:.3f})",
        **{name: value for name, value in asdict(result).items() if name != "seeds"},
        "seeds": " ".join(map(str, result.seeds)),
        "trained_weights": detail.trained_weights,
        "fit_seconds": detail.fit_seconds,
    }


def _child(record: RunRecord, store: Store, cell: Cell, seed: int, detail: Detail) -> TrackedRun:
    place = sorted(cell.fits).index(seed)  # the order of `by_seed`
    metrics = {name: score["by_seed"][place] for name, score in detail.scores.items()}
    seeds = {"seed": str(seed)} if len(cell.fits) > 1 else {}
    settings = {name: str(value) for name, value in detail.settings[seed].items()}
    return TrackedRun(
        key=f"{record.run_id}:{cell.fits[seed].key}",
        name=" ".join([cell.method, cell.task, *(f"seed {seed}" for _ in seeds)]),
        status="FINISHED",
        params={"model": cell.model, "task": cell.task, "method": cell.method, **seeds, **settings},
        metrics={
            **metrics,
            "trained_weights": float(detail.trained_weights),
            **({"fit_seconds": detail.fit_seconds} if detail.fit_seconds is not None else {}),
        },
        tags={
            "vocabsem.run_id": record.run_id,
            "vocabsem.method": cell.method,
            "vocabsem.task": cell.task,
            "vocabsem.model": cell.model,
        },
        model=tracked_model(cell.fits[seed], store),
    )


def _one_model(cells: Sequence[Cell]) -> bool:
    return len({cell.model for cell in cells}) == 1


def _names(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))
