"""Results of a comparison: read from the artifacts, and as JSON in the record of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from workflows.results.costs import Costs

Part = TypeVar("Part", "Result", "Detail")
Verdict = Literal["better", "worse", "no difference shown"]
LEVEL = 0.05  # of all comparisons of a run together


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
    train_size: int | str = "full"  # rows per class

    @property
    def place(self) -> tuple[str, str, str, int | str]:
        """What tells it from the other results of its run."""
        return self.model, self.task, self.method, self.train_size


@dataclass(frozen=True)
class Versus:
    """A method against another: the reference method, or the best.

    Attributes:
        reference: the other, by name.
        mean, low, high: the difference, method minus reference, and its 95 % interval.
        p: of the paired randomisation test.
        by_seed: the exact McNemar test of each seed: won, lost, p. Empty where the other is the best.
        p_holm: p after Holm's correction over all comparisons of the run, see `judged`.
        verdict: what `p_holm` says at `LEVEL`.
    """

    reference: str
    mean: float
    low: float
    high: float
    p: float
    by_seed: list[dict[str, Any]] = field(default_factory=list)
    p_holm: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What stands behind a result.

    Attributes:
        trained_weights: how many numbers were trained.
        costs: seconds and bytes.
        constant_prediction: whether a fit gave one class throughout: it was not trained, it was not beaten.
        calibration_error: expected calibration error of the class probabilities on the test rows, mean over seeds; None
            where there are no classes, or no test rows yet.
        scores, settings: every metric; the settings of each seed.
        versus: the comparison with the reference method; None for that method, and where none was made.
        trials, budget: search trials made and allowed; None where there is nothing to tune.
        labels, confusion: class names; true class x predicted class, counts over all seeds.
        model_weights: of the language model.
        trial_rows: rows that a trial was trained on; None: as many as the fit.
        folds: fits that are averaged, each with other rows held out.
        to_best: the comparison with the best method of the same model and task; None for that method itself, and where
            none was made.
    """

    trained_weights: int
    costs: Costs
    constant_prediction: bool = False
    calibration_error: float | None = None
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    versus: Versus | None = None
    trials: int | None = None
    budget: int | None = None
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    model_weights: int | None = None
    trial_rows: int | None = None
    folds: int = 1
    to_best: Versus | None = None


def largest(results: Sequence[tuple[Result, Detail]]) -> int | str:
    """The training size that the table shows."""
    sizes = {result.train_size for result, _ in results}
    return "full" if "full" in sizes or not sizes else max(size for size in sizes if isinstance(size, int))


def sized(size: int | str) -> list[str]:
    """The training size as a part of a result's name: nothing where it is all rows."""
    return [] if size == "full" else [f"{size} rows per class"]


def stored(results: Sequence[tuple[Result, Detail]]) -> list[dict[str, Any]]:
    """Results as the record of a run holds them: results.json."""
    return [{**asdict(result), **asdict(detail)} for result, detail in results]


def read_stored(document: Sequence[Mapping[str, Any]]) -> list[tuple[Result, Detail]]:
    """Results from the record of a run. JSON has made words of the seeds that name the settings."""
    return [(_part(Result, line), _part(Detail, _typed(line))) for line in document]


def _typed(line: Mapping[str, Any]) -> dict[str, Any]:
    """A record of an older version has one number for all costs."""
    return {
        **line,
        "settings": {int(seed): found for seed, found in line["settings"].items()},
        "costs": Costs(**line["costs"]) if "costs" in line else Costs(fit=line["fit_seconds"]),
        **{name: Versus(**line[name]) if line.get(name) else None for name in ("versus", "to_best")},
    }


def _part(kind: type[Part], line: Mapping[str, Any]) -> Part:
    return kind(**{one.name: line[one.name] for one in fields(kind) if one.name in line})


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
        "results": [
            {
                **asdict(result),
                "trained_weights": detail.trained_weights,
                "costs": {**asdict(detail.costs), "total": detail.costs.total, "marginal": detail.costs.marginal},
                "versus": asdict(detail.versus) if detail.versus is not None else None,
                "to_best": asdict(detail.to_best) if detail.to_best is not None else None,
                "constant_prediction": detail.constant_prediction,
                "calibration_error": detail.calibration_error,
            }
            for result, detail in results
        ],
        "mlflow_run_id": mlflow_run_id,
        "seconds": round(seconds, 2),
    }
