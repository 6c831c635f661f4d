"""Results of a comparison: read from the artifacts, and as JSON in the record of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.store.artifacts import Store
from workflows.compare.graph import Cell
from workflows.results.costs import Costs, Ledger
from workflows.steps.best import BEST, lead_of
from workflows.steps.paired_test import VERSUS

Part = TypeVar("Part", "Result", "Detail")
Verdict = Literal["better", "worse", "no difference shown"]
LEVEL = 0.05  # of all comparisons of a run together
_READING = ("model", "tokenizer", "template", "max_tokens")  # by which a model reads texts


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
    train_size: int | str = "full"  # rows a class

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


@dataclass(frozen=True)
class Detail:
    """What stands behind a result.

    Attributes:
        trained_weights: how many numbers were trained.
        costs: seconds and bytes.
        constant_prediction: whether a fit gave one class throughout: it was not trained, it was not beaten.
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
    constant_prediction: bool
    calibration_error: float
    scores: Mapping[str, Mapping[str, Any]]
    settings: Mapping[int, Mapping[str, Any]]
    versus: Versus | None = None
    trials: int | None = None
    budget: int | None = None
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    model_weights: int | None = None
    trial_rows: int | None = None
    folds: int = 1
    to_best: Versus | None = None


def read_result(cell: Cell, ledger: Ledger) -> tuple[Result, Detail] | None:
    """The result of a cell, or None where its score or one of its fits is not there. `judged` adds the verdicts."""
    store = ledger.store
    artifact = store.find(cell.score)
    fits = {seed: fit for seed, step in cell.fits.items() if (fit := store.find(step)) is not None}
    if artifact is None or len(fits) < len(cell.fits):
        return None
    record = artifact.json("score.json")
    score = record["scores"][cell.metric]
    numbers = {name: score[name] for name in ("mean", "low", "high", "sd_seeds")}
    names = (cell.model, cell.task, cell.method, cell.metric)
    result = Result(*names, **numbers, seeds=list(cell.seeds), n_test=record["n_test"], train_size=cell.train_size)
    records = {seed: fit.json("fit.json") for seed, fit in fits.items()}
    weights = max(entry["trained_weights"] for entry in records.values())
    versus = store.find(cell.versus) if cell.versus is not None else None
    detail = Detail(
        weights,
        ledger.costs(cell.fits),
        record["constant_prediction"],
        record["calibration_error"],
        record["scores"],
        {seed: entry["settings"] for seed, entry in records.items()},
        Versus(cell.reference, **versus.json(VERSUS)) if versus is not None else None,
        ledger.trials(cell.fits),
        cell.trials,
        list(cell.labels),
        record["confusion"],
        cell.model_weights,
        ledger.trial_rows(cell.fits),
        max(step.identity.get("folds", 1) for step in cell.fits.values()),
        _to_best(cell, store),
    )
    return result, detail


def _to_best(cell: Cell, store: Store) -> Versus | None:
    """Without the name of the best, which `judged` knows."""
    artifact = store.find(cell.best) if cell.best is not None else None
    if cell.best is None or artifact is None:
        return None
    found = lead_of(cell.best, artifact.json(BEST), cell.fits)
    return Versus("", **found) if found is not None else None


def largest(results: Sequence[tuple[Result, Detail]]) -> int | str:
    """The training size that the table shows."""
    sizes = {result.train_size for result, _ in results}
    return "full" if "full" in sizes or not sizes else max(size for size in sizes if isinstance(size, int))


def sized(size: int | str) -> list[str]:
    """The training size as a part of a result's name: nothing where it is all rows."""
    return [] if size == "full" else [f"{size} rows a class"]


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


def truncations(cells: Sequence[Cell], store: Store) -> list[str]:
    """A line for each split in which prompts were cut to fit the window, once for all methods that read the same.

    Where that is not known, since what tells of it is damaged, the line says so.
    """
    read = {step.key: step for cell in cells for fit in cell.fits.values() for step in (*fit.inputs.values(), fit)}
    lines: dict[tuple[Any, ...], str] = {}
    for step in (step for kind in ("encode", "finetune") for step in read.values() if step.name == kind):
        reading = step.identity.get("reading", step.identity)
        try:
            cuts = _cuts(step, store)
        except DamagedArtifact as error:
            lines[step.key,] = f"{step.label}: not known whether prompts were cut: {error}"
            continue
        for role, cut in cuts.items():
            texts, before = step.inputs[role], step.inputs.get("demonstrations")
            same = (texts.key, before and before.key, *(reading[name] for name in _READING))
            where = step.label if step.name == "encode" else f"{step.label}, {texts.label}"
            if cut["prompts"] and same not in lines:
                lines[same] = (
                    f"{where}: {cut['prompts']} of {cut['rows']} prompts cut to {reading['max_tokens']} tokens "
                    f"({cut['tokens']} text tokens removed)"
                )
    return list(lines.values())


def _cuts(step: Step, store: Store) -> Mapping[str, Mapping[str, int]]:
    """Rows, prompts that were cut, and tokens they lost, by the role of the texts; nothing where it was not made."""
    from orchestration.store.arrow import column_array, read_table

    if (artifact := store.find(step)) is None:
        return {}
    if step.name == "finetune":
        return artifact.json("fit.json")["cut"]
    cuts = [column_array(read_table(path), "cut") for path in artifact.shards()]
    prompts, tokens = (sum(int(part.sum()) for part in parts) for parts in ([cut > 0 for cut in cuts], cuts))
    return {"texts": {"rows": artifact.rows, "prompts": prompts, "tokens": tokens}}


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
            }
            for result, detail in results
        ],
        "mlflow_run_id": mlflow_run_id,
        "seconds": round(seconds, 2),
    }
