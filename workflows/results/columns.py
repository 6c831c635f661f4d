"""The numbers beside a score, each declared once: the terminal, the page, Markdown and MLflow show them from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workflows.errors import ConfigError
from workflows.results.costs import mean
from workflows.results.model import Detail, Result
from workflows.results.wording import seconds


@dataclass(frozen=True)
class Column:
    """One number about a result.

    Attributes:
        name: what `--columns` calls it.
        heading: what tables call it.
        value: the number of one result, None where it is not known.
        text: the cell for one result, or for those of several tasks.
        metric: its name in MLflow; empty: MLflow does not show it.
    """

    name: str
    heading: str
    value: Callable[[Result, Detail], Any]
    text: Callable[[Sequence[Any]], str]
    metric: str = ""

    def cell(self, results: Sequence[tuple[Result, Detail]]) -> str:
        """The cell for one result, or for those of several tasks."""
        return self.text([self.value(*found) for found in results])


def _seconds(values: Sequence[float | None]) -> str:
    return seconds(mean(values))


def _megabytes(values: Sequence[float | None]) -> str:
    found = mean(values)
    return "not recorded" if found is None else f"{found / 1e6:,.1f}"


def _range(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "none"
    return str(known[0]) if len(set(known)) == 1 else f"{min(known)} to {max(known)}"


def _error(values: Sequence[float | None]) -> str:
    found = mean(values)
    return "none" if found is None else f"{found:.3f}"


def _peak(_: Result, detail: Detail) -> float | None:
    """Of GPU tensors where there was a GPU."""
    costs = detail.costs
    return costs.peak_cuda if costs.peak_cuda is not None else costs.peak_rss


COLUMNS = (
    Column("encode", "encode", lambda _, detail: detail.costs.encode, _seconds),
    Column("basis", "basis", lambda _, detail: detail.costs.basis, _seconds),
    Column("search", "search", lambda _, detail: detail.costs.search, _seconds),
    Column("fit", "fit seconds", lambda _, detail: detail.costs.fit, _seconds),
    Column("seconds", "seconds", lambda _, detail: detail.costs.total, _seconds, "seconds"),
    Column("cached", "cached", lambda _, detail: detail.costs.marginal, _seconds),
    Column("weights", "weights", lambda _, detail: detail.trained_weights, lambda v: f"{max(v):,}", "trained_weights"),
    Column("peak", "peak MB", _peak, _megabytes),
    Column("states", "states MB", lambda _, detail: detail.costs.states_bytes, _megabytes),
    Column("fit-size", "fit MB", lambda _, detail: detail.costs.fit_bytes, _megabytes),
    Column("trials", "trials", lambda _, detail: detail.trials, _range),
    Column("seeds", "seeds", lambda result, _: len(result.seeds), lambda v: str(v[0])),
    Column(
        "calibration-error",
        "calibration error",
        lambda _, detail: detail.calibration_error,
        _error,
        "calibration_error",
    ),
)
_BY_NAME = {column.name: column for column in COLUMNS}


def columns(names: Sequence[str]) -> list[Column]:
    """The columns of these names."""
    return [_BY_NAME[name] for name in names]


def asked_columns(text: str) -> list[Column]:
    """The columns that `--columns` names, with commas between. Raises ConfigError for an unknown one."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _BY_NAME:
            raise ConfigError(f"--columns: no column {name!r}; known: {', '.join(_BY_NAME)}")
    return columns(names)


def metrics(result: Result, detail: Detail) -> dict[str, float]:
    """What MLflow shows of a result, by the names that it has there."""
    found = {column.metric: column.value(result, detail) for column in COLUMNS if column.metric}
    return {name: float(value) for name, value in found.items() if value is not None}
