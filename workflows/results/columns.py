"""The numbers of a result, each declared once: terminal, report, `--json`, pandas and MLflow show them from here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workflows.errors import ConfigError
from workflows.results.answers import level
from workflows.results.model import Detail, Found, Result, mean
from workflows.results.wording import LEVEL, interval, seconds


@dataclass(frozen=True)
class Column:
    """One number of a result.

    Attributes:
        name: what `--columns` calls it.
        heading: what tables call it.
        field: its name in `--json`, in pandas and in MLflow; empty: the fields of `Result` have it.
        value: the number of one result, None where it is not known.
        text: the cell.
        over: makes one number of those of several tasks.
        tracked: whether each fit in MLflow has it as a metric.
    """

    name: str
    heading: str
    field: str
    value: Callable[[Result, Detail], Any]
    text: Callable[[Any], str]
    over: Callable[[Sequence[Any]], Any] = mean
    tracked: bool = False

    def of(self, results: Sequence[Found]) -> Any:
        """The number of one result, or of those of several tasks."""
        return self.over([self.value(*found) for found in results])

    def cell(self, results: Sequence[Found]) -> str:
        """The same as text."""
        return self.text(self.of(results))


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _span(values: Sequence[int | None]) -> tuple[int, int] | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def _span_text(span: tuple[int, int] | None) -> str:
    return "none" if span is None else str(span[0]) if span[0] == span[1] else f"{span[0]} to {span[1]}"


def _megabytes(value: float | None) -> str:
    return "not recorded" if value is None else f"{value / 1e6:,.1f}"


def _error(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _peak(_: Result, detail: Detail) -> float | None:
    """Of GPU tensors where there was a GPU."""
    costs = detail.costs
    return costs.peak_cuda if costs.peak_cuda is not None else costs.peak_rss


def _sd(result: Result, _: Detail) -> str:
    same = "same" if len(result.seeds) > 1 else "one seed"
    return same if result.sd_seeds is None else f"{result.sd_seeds:.3f}"


SCORE = Column(
    "score",
    "score  ",
    "",
    lambda result, detail: (result.mean, level(detail)),
    lambda found: f"{found[0]:.3f} {LEVEL if found[1] else ' '}",
    _first,
)
SPREAD = (
    Column(
        "interval", "95 % interval", "", lambda result, _: (result.low, result.high), lambda v: interval(*v), _first
    ),
    Column("sd-seeds", "sd seeds", "", _sd, str, _first),
)
SECONDS = Column("seconds", "seconds", "seconds", lambda _, detail: detail.costs.total, seconds, tracked=True)
CACHED = Column("cached", "cached", "cached_seconds", lambda _, detail: detail.costs.marginal, seconds)
COLUMNS = (
    Column("encode", "encode", "encode_seconds", lambda _, detail: detail.costs.encode, seconds),
    Column("basis", "basis", "basis_seconds", lambda _, detail: detail.costs.basis, seconds),
    Column("search", "search", "search_seconds", lambda _, detail: detail.costs.search, seconds),
    Column("fit", "fit seconds", "fit_seconds", lambda _, detail: detail.costs.fit, seconds),
    SECONDS,
    CACHED,
    Column("weights", "weights", "trained_weights", lambda _, d: d.trained_weights, lambda v: f"{v:,}", max, True),
    Column("peak", "peak MB", "peak_bytes", _peak, _megabytes),
    Column("states", "states MB", "states_bytes", lambda _, detail: detail.costs.states_bytes, _megabytes),
    Column("fit-size", "fit MB", "fit_bytes", lambda _, detail: detail.costs.fit_bytes, _megabytes),
    Column("trials", "trials", "trials", lambda _, detail: detail.trials, _span_text, _span),
    Column("dtype", "dtype", "dtype", lambda _, detail: detail.dtype, lambda v: v or "none", _first),
    Column("seeds", "seeds", "", lambda result, _: len(result.seeds), str, _first),
    Column(
        "calibration-error",
        "calibration error",
        "calibration_error",
        lambda _, detail: detail.calibration_error,
        _error,
        tracked=True,
    ),
)
_BY_NAME = {column.name: column for column in COLUMNS}
ON_REQUEST = tuple(name for name in _BY_NAME if name not in ("seconds", "cached", "weights"))  # by `--columns`


def table_columns(results: Sequence[Found]) -> list[Column]:
    """The columns of the terminal's table, in their order; a sweep and a pretraining know what a fit costs, no more."""
    whole = any(detail.costs.total is not None for _, detail in results)
    own = ("weights", "dtype") if any(detail.dtype not in (None, "float32") for _, detail in results) else ("weights",)
    return [SCORE, *columns(("seconds", "cached") if whole else ("fit",)), *SPREAD, *columns(own)]


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


def numbers(found: Found) -> dict[str, Any]:
    """Field -> number of a result."""
    return {column.field: column.value(*found) for column in COLUMNS if column.field}


def metrics(results: Sequence[Found]) -> dict[str, float]:
    """What MLflow has of a result, or of a method's results on several tasks."""
    known = {column.field: column.of(results) for column in COLUMNS if column.tracked}
    return {name: float(value) for name, value in known.items() if value is not None}
