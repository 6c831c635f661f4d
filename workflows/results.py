"""Results of a comparison: read from the artifacts, and as JSON in the record of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from orchestration.store import Store
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
    fit_seconds: float | None  # of one fit; None where it was not recorded
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
    seconds = [fit.json("provenance.json").get("work_seconds") for fit in fits.values()]
    weights = max(entry["trained_weights"] for entry in records.values())
    detail = Detail(
        weights,
        None if None in seconds else sum(seconds) / len(seconds),
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
