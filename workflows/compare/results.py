"""The results of a comparison's cells, read from the artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from orchestration.errors import DamagedArtifact
from orchestration.execution.work import callable_of
from orchestration.graph import Step
from orchestration.store.artifacts import Store
from workflows.compare.graph import Cell
from workflows.results.costs import Ledger
from workflows.results.model import Detail, Found, Result, Versus
from workflows.steps.best import BEST, lead_of
from workflows.steps.paired_test import VERSUS


def read_result(cell: Cell, ledger: Ledger) -> Found | None:
    """The result of a cell, or None where its score or one of its fits is not there. `judged` adds the verdicts."""
    store = ledger.store
    artifact = store.find(cell.score)
    fits = {seed: fit for seed, step in cell.fits.items() if (fit := store.find(step)) is not None}
    if artifact is None or len(fits) < len(cell.fits):
        return None
    record = artifact.json("score.json")
    score = record["scores"][cell.metric]
    numbers = {name: score[name] for name in ("mean", "low", "high", "sd_seeds")}
    result = Result(
        model=cell.model,
        task=cell.task,
        method=cell.method,
        metric=cell.metric,
        **numbers,
        seeds=list(cell.seeds),
        n_test=record["n_test"],
        train_size=cell.train_size,
    )
    records = {seed: fit.json("fit.json") for seed, fit in fits.items()}
    weights = max(entry["trained_weights"] for entry in records.values())
    versus = store.find(cell.versus) if cell.versus is not None else None
    detail = Detail(
        trained_weights=weights,
        costs=ledger.costs(cell.fits),
        constant_prediction=record["constant_prediction"],
        calibration_error=record["calibration_error"],
        scores=record["scores"],
        settings={seed: entry["settings"] for seed, entry in records.items()},
        versus=Versus(cell.reference, **versus.json(VERSUS)) if versus is not None else None,
        trials=ledger.trials(cell.fits),
        budget=cell.trials,
        labels=list(cell.labels),
        confusion=record["confusion"],
        model_weights=cell.extractor.parameters,
        trial_rows=ledger.trial_rows(cell.fits),
        unlabelled_rows=max(entry.get("unlabelled_rows", 0) for entry in records.values()),
        folds=max(step.identity.get("folds", 1) for step in cell.fits.values()),
        to_best=_to_best(cell, store),
        copy=cell.copy,
        dtype=_dtype(cell.fits.values()),
    )
    return result, detail


def _to_best(cell: Cell, store: Store) -> Versus | None:
    """Without the name of the best, which `judged` knows."""
    artifact = store.find(cell.best) if cell.best is not None else None
    if cell.best is None or artifact is None:
        return None
    found = lead_of(cell.best, artifact.json(BEST), cell.fits, cell.copy)
    return Versus("", **found) if found is not None else None


def _dtype(fits: Iterable[Step]) -> str | None:
    """The precision of the model's forward passes, or of its weights and products in a finetuning."""
    for step in (step for fit in fits for step in _read_by(fit)):
        how = step.identity.get("reading", step.identity)
        if "dtype" in how:
            return f"{how['dtype']}, products {how['products']}" if "products" in how else how["dtype"]
    return None


def _read_by(fit: Step) -> Iterator[Step]:
    """A fit, what it reads, and the demonstrations of prompts that it reads; inputs first."""
    for step in fit.inputs.values():
        if "demonstrations" in step.inputs:
            yield step.inputs["demonstrations"]
        yield step
    yield fit


def remarks(cells: Sequence[Cell], store: Store) -> list[str]:
    """What the fits and what they read tell a reader of results, each once; where that is damaged, that it is."""
    fits = [fit for cell in cells for fit in cell.fits.values()]
    read = {step.key: step for fit in fits for step in _read_by(fit)}
    lines: dict[str, str] = {}
    for step in read.values():
        try:
            artifact = store.find(step) if step.remarks else None
            found = callable_of(step.remarks)(step, artifact) if artifact is not None else {}
        except DamagedArtifact as error:
            found = {step.key: f"{step.label}: not known what there is to remark: {error}"}
        lines = {**found, **lines}
    return sorted(lines.values())
