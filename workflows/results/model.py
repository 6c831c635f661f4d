"""Results of a comparison: read from the artifacts, and as JSON in the record of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean
from typing import Any, Literal, TypeAlias, TypeVar

Part = TypeVar("Part", "Result", "Detail")
Verdict = Literal["better", "worse", "no difference shown"]
LEVEL = 0.05  # of all comparisons of a run at one training size, together


def total(*values: float | None) -> float | None:
    """Their sum; None where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Costs:
    """What one answer costs: one fit, the mean over seeds. None: a step does not say.

    Process start, imports and the loading of models are in no part.

    Attributes:
        encode: seconds in which workers ran the language model over the prompts it reads, and chose demonstrations for
            them. Other methods share these states, and each is charged all of it.
        basis: seconds for the output head and the semantic basis, charged in the same way.
        search: seconds of all trials.
        fit: seconds of one fit and of its predictions for the test rows.
        peak_rss: bytes, the most of a process that searched or fitted, libraries and mapped files included.
        peak_cuda: bytes of tensors on a GPU.
        states_bytes: stored states it reads, and the demonstrations before their prompts.
        fit_bytes: stored files of one fit.
    """

    encode: float | None = None
    basis: float | None = None
    search: float | None = None
    fit: float | None = None
    peak_rss: float | None = None
    peak_cuda: float | None = None
    states_bytes: int | None = None
    fit_bytes: int | None = None

    @property
    def total(self) -> float | None:
        """Seconds with nothing cached."""
        return total(self.encode, self.basis, self.search, self.fit)

    @property
    def marginal(self) -> float | None:
        """Seconds where states and basis are there already."""
        return total(self.search, self.fit)


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
        unlabelled_rows: training rows that it reads without their labels, beyond those that it is trained on.
        to_best: the comparison with the best method of the same model and task; None for that method itself, and where
            none was made.
        copy: whether a method before it of the same model and task has the very same fits, and so is the same.
        dtype: the precision in which the language model ran or was trained; None where it did not run.
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
    unlabelled_rows: int = 0
    to_best: Versus | None = None
    copy: bool = False
    dtype: str | None = None


Found: TypeAlias = tuple[Result, Detail]


def by_place(results: Iterable[Found]) -> dict[tuple[str, str, str, int | str], Found]:
    """Results by what tells them from the others of their run; of two with one place the later."""
    return {result.place: (result, detail) for result, detail in results}


def largest(results: Sequence[Found]) -> int | str:
    """The training size that the table shows."""
    sizes = {result.train_size for result, _ in results}
    return "full" if "full" in sizes or not sizes else max(size for size in sizes if isinstance(size, int))


def sized(size: int | str) -> list[str]:
    """The training size as a part of a result's name: nothing where it is all rows."""
    return [] if size == "full" else [f"{size} rows per class"]


def stored(results: Sequence[Found]) -> list[dict[str, Any]]:
    """Results as the record of a run holds them: results.json."""
    return [{**asdict(result), **asdict(detail)} for result, detail in results]


def read_stored(document: Sequence[Mapping[str, Any]]) -> list[Found]:
    """Results from the record of a run. JSON has made words of the seeds that name the settings."""
    return [(_part(Result, line), _part(Detail, _typed(line))) for line in document]


def _typed(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **line,
        "settings": {int(seed): found for seed, found in line["settings"].items()},
        "costs": Costs(**line["costs"]),
        **{name: Versus(**line[name]) if line.get(name) else None for name in ("versus", "to_best")},
    }


def _part(kind: type[Part], line: Mapping[str, Any]) -> Part:
    return kind(**{one.name: line[one.name] for one in fields(kind) if one.name in line})
