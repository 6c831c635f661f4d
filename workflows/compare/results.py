"""The results of a comparison's cells, read from the artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step
from orchestration.store.artifacts import Store
from workflows.compare.graph import Cell
from workflows.results.costs import Ledger
from workflows.results.model import Detail, Result, Versus
from workflows.steps.best import BEST, lead_of
from workflows.steps.paired_test import VERSUS

_READING = ("model", "tokenizer", "template", "max_tokens")  # by which a model reads texts


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


def without_validation(cells: Sequence[Cell], store: Store) -> list[str]:
    """A line for each label that has one training row in its file, and so none to validate by."""
    from orchestration.store.arrow import column_array, read_table

    steps = {step.key: step for cell in cells for fit in cell.fits.values() for step in fit.inputs.values()}
    lines = []
    for step in steps.values():
        labels = store.find(step) if step.name == "labels" else None
        if labels is not None:
            columns = [column_array(read_table(path), "label") for path in labels.shards()]
            numbers = [number for column in columns for number in column.tolist()]
            for place, name in enumerate(step.identity["names"]):
                if numbers.count(place) == 1:
                    lines.append(f"{step.label}: label {name!r} has one training row, and so no validation row")
    return lines
