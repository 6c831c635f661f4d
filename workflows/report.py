"""Results of a comparison: read from the artifacts, shown as a table, as JSON, and as MLflow runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from orchestration.runs import RunRecord
from orchestration.store import Store
from orchestration.tracking import TrackedRun
from workflows.compare import Cell

Part = TypeVar("Part", "Result", "Detail")


@dataclass(frozen=True)
class Result:
    """A line of the table. Numbers are fractions; `low` and `high` bound the 95 % bootstrap interval over test items.

    `sd_seeds` is None where the method gives the same result for every seed.
    """

    model: str
    task: str
    method: str
    metric: str
    mean: float
    low: float
    high: float
    sd_seeds: float | None
    seeds: list[int]
    n_test: int
    rows: str = "test"  # which they are: "validation" where settings are still being chosen


@dataclass(frozen=True)
class Detail:
    """What stands behind a result: costs and warnings, for the table and MLflow."""

    trained_weights: int
    fit_seconds: float
    constant_prediction: bool
    calibration_error: float
    scores: Mapping[str, Mapping[str, Any]]
    settings: Mapping[int, Mapping[str, Any]]


def read_result(cell: Cell, store: Store) -> tuple[Result, Detail] | None:
    """The result of a cell, or None where its score was not made."""
    artifact = store.find(cell.score)
    if artifact is None:
        return None
    record = artifact.json("score.json")
    score = record["scores"][cell.metric]
    numbers = {name: score[name] for name in ("mean", "low", "high", "sd_seeds")}
    result = Result(
        cell.model, cell.task, cell.method, cell.metric, **numbers, seeds=list(cell.seeds), n_test=record["n_test"]
    )
    fits = {seed: fit for seed, step in cell.fits.items() if (fit := store.find(step)) is not None}
    records = {seed: fit.json("fit.json") for seed, fit in fits.items()}
    seconds = [fit.json("provenance.json")["fit_seconds"] for fit in fits.values()]
    weights = max(entry["trained_weights"] for entry in records.values())
    detail = Detail(
        weights,
        sum(seconds) / len(seconds),
        record["constant_prediction"],
        record["calibration_error"],
        record["scores"],
        {seed: entry["settings"] for seed, entry in records.items()},
    )
    return result, detail


def stored(results: Sequence[tuple[Result, Detail]]) -> list[dict[str, Any]]:
    """Results as the record of a run holds them: results.json."""
    return [{**vars(result), **vars(detail)} for result, detail in results]


def read_stored(document: Sequence[Mapping[str, Any]]) -> list[tuple[Result, Detail]]:
    """Results from the record of a run. JSON has made words of the seeds that name the settings."""
    numbered = [
        {**line, "settings": {int(seed): found for seed, found in line["settings"].items()}} for line in document
    ]
    return [(_part(Result, line), _part(Detail, line)) for line in numbered]


def _part(kind: type[Part], line: Mapping[str, Any]) -> Part:
    return kind(**{field.name: line[field.name] for field in fields(kind) if field.name in line})


def truncations(cells: Sequence[Cell], store: Store) -> list[str]:
    """A line for each encoded split in which prompts were cut to fit the window."""
    from orchestration.shards import column_array, read_table

    lines = []
    encodes = {
        step.key: step
        for cell in cells
        for fit in cell.fits.values()
        for step in fit.inputs.values()
        if step.name == "encode"
    }
    for step in encodes.values():
        if (artifact := store.find(step)) is not None:
            cuts = [column_array(read_table(path), "cut") for path in artifact.shards()]
            prompts = sum(int((cut > 0).sum()) for cut in cuts)
            if prompts:
                lines.append(
                    f"{step.label}: {prompts} of {artifact.rows} prompts cut to {step.identity['max_tokens']} tokens "
                    f"({sum(int(cut.sum()) for cut in cuts)} text tokens removed)"
                )
    return lines


def table(results: Sequence[tuple[Result, Detail]]) -> str:
    """The comparison as plain text, one block a model and task."""
    lines = []
    for (model, task), group in groupby(results, key=lambda pair: (pair[0].model, pair[0].task)):
        block = list(group)
        first = block[0][0]
        lines += ["", f"{task}   ({first.metric}, {first.n_test} {first.rows} rows, model {model})"]
        width = max(len(result.method) for result, _ in block)
        lines.append(f"  {'method':{width}}   score   95 % interval    sd over seeds   trained weights   fit seconds")
        for result, detail in block:
            spread = (
                f"{result.sd_seeds:.3f}"
                if result.sd_seeds is not None
                else "same for all"
                if len(result.seeds) > 1
                else "one seed"
            )
            flag = "   (one class predicted throughout)" if detail.constant_prediction else ""
            lines.append(
                f"  {result.method:{width}}   {result.mean:.3f}   {result.low:.3f} to {result.high:.3f}   "
                f"{spread:>13}   {detail.trained_weights:>15,}   {detail.fit_seconds:>11.1f}{flag}"
            )
    return "\n".join(lines[1:])


def document(
    run_id: str,
    outcomes: Mapping[str, int],
    results: Sequence[tuple[Result, Detail]],
    mlflow_run_id: str | None,
    seconds: float,
) -> dict[str, Any]:
    """What `run --json` prints."""
    return {
        "run_id": run_id,
        "steps": dict(outcomes),
        "results": [asdict(result) for result, _ in results],
        "mlflow_run_id": mlflow_run_id,
        "seconds": round(seconds, 2),
    }


def tracked(
    record: RunRecord, cells: Sequence[Cell], results: Sequence[tuple[Result, Detail]], status: Any
) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
    """The MLflow runs of a comparison: a parent with the summary, and a child for each fit."""
    details = {(result.model, result.task, result.method): (result, detail) for result, detail in results}
    children = [
        _child(record, cell, seed, details[(cell.model, cell.task, cell.method)][1])
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


def _child(record: RunRecord, cell: Cell, seed: int, detail: Detail) -> TrackedRun:
    place = sorted(cell.fits).index(seed)  # the order of `by_seed`
    metrics = {name: score["by_seed"][place] for name, score in detail.scores.items()}
    seeds = {"seed": str(seed)} if len(cell.fits) > 1 else {}
    settings = {name: str(value) for name, value in detail.settings[seed].items()}
    return TrackedRun(
        key=f"{record.run_id}:{cell.fits[seed].key}",
        name=" ".join([cell.method, cell.task, *(f"seed {seed}" for _ in seeds)]),
        status="FINISHED",
        params={"model": cell.model, "task": cell.task, "method": cell.method, **seeds, **settings},
        metrics={**metrics, "trained_weights": float(detail.trained_weights), "fit_seconds": detail.fit_seconds},
        tags={
            "vocabsem.run_id": record.run_id,
            "vocabsem.method": cell.method,
            "vocabsem.task": cell.task,
            "vocabsem.model": cell.model,
        },
    )


def _one_model(cells: Sequence[Cell]) -> bool:
    return len({cell.model for cell in cells}) == 1


def _names(values: Any) -> str:
    return ", ".join(dict.fromkeys(values))
