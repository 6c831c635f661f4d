"""Results for programs: `run --json`, and the flat rows of pandas and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from workflows.results.columns import numbers
from workflows.results.model import Found, Versus

_PARTS = ("versus", "to_best")


def document(
    run_id: str, outcomes: Mapping[str, int], results: Sequence[Found], mlflow_run_id: str | None, seconds: float
) -> dict[str, Any]:
    """What `run --json` prints.

    Args:
        run_id: of the run.
        outcomes: how many steps `ran`, were `cached` and `failed`.
        results: in the order of the table.
        mlflow_run_id: None where MLflow has no run of it.
        seconds: how long the command took.
    """
    return {
        "run_id": run_id,
        "steps": dict(outcomes),
        "results": [row(found) for found in results],
        "mlflow_run_id": mlflow_run_id,
        "seconds": round(seconds, 2),
    }


def row(found: Found) -> dict[str, Any]:
    """A result with its columns and its comparisons."""
    result, detail = found
    compared = {part: getattr(detail, part) for part in _PARTS}
    return {
        **asdict(result),
        **numbers(found),
        "constant_prediction": detail.constant_prediction,
        **{part: None if versus is None else asdict(versus) for part, versus in compared.items()},
    }


def flat_row(found: Found) -> dict[str, Any]:
    """The same with the fields of each comparison as `versus_mean`, `to_best_p` and so on."""
    made = row(found)
    parts = {part: made.pop(part) or {} for part in _PARTS}
    nested = {f"{part}_{one.name}": values.get(one.name) for part, values in parts.items() for one in fields(Versus)}
    return made | nested
