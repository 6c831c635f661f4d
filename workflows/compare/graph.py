"""The `compare` workflow: methods x tasks x models, as a graph of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestration.graph import Step
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.compare.entry import Entry
from workflows.config.compare import CompareConfig
from workflows.errors import ConfigError, in_field
from workflows.extractors.base import FeatureExtractor, Materials
from workflows.extractors.registry import extractor_kind
from workflows.inputs.catalog import Task, find_task
from workflows.methods.resolved import ResolvedMethod, resolve
from workflows.steps.best import best_step, copies
from workflows.steps.fit import score_step
from workflows.steps.paired_test import versus_step


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of the table: a method on a task under a model.

    Attributes:
        extractor: whose features it reads: the model.
        rows: by split, the step that stores what a person sees of the rows.
        fits: the fits that were made, by seed: one where the seed cannot change anything.
        seeds: all seeds the score holds for.
        train_size: rows per class, or "full".
        labels: names of the classes, in order.
        trials: the search budget; None where there is nothing to tune.
        reference: the method it is tested against, by name.
        versus: the step that does so; None for the reference itself.
        best: the step that finds the best method of the task and tests all others against it; None for all but the
            largest training size, and where there is one method alone.
        copy: whether a method before it in the same table has the very same fits.
    """

    extractor: FeatureExtractor
    task: str
    method: str
    metric: str
    seeds: tuple[int, ...]
    fits: Mapping[int, Step]
    score: Step
    train_size: int | str
    labels: tuple[str, ...]
    rows: Mapping[str, Step]
    trials: int | None
    reference: str
    versus: Step | None = None
    best: Step | None = None
    copy: bool = False

    @property
    def model(self) -> str:
        """The model's name."""
        return self.extractor.name

    @property
    def place(self) -> tuple[str, str, str, int | str]:
        """What tells its result from the others."""
        return self.model, self.task, self.method, self.train_size


def comparison(config: CompareConfig, base: Path, data_dir: Path | None, facts: FingerprintCache) -> list[Cell]:
    """The graph of a workflow file, by its final steps. Reads what is needed to know what the keys are made from.

    `base` is the folder that relative paths start from. Raises ConfigError for what cannot be found.
    """
    methods = [resolve(method, base, ("methods", index)) for index, method in enumerate(config.methods)]
    tasks = [open_task(index, config, base, data_dir) for index in range(len(config.tasks))]
    models = [open_model(index, config, base, facts) for index in range(len(config.models))]
    for index, method in enumerate(methods):
        with in_field("methods", index):
            for reference, model in zip(config.models, models, strict=True):
                if method.config.runs_under(reference):
                    model.check_method(method)
    check_distinct("model", [model.name for model in models])
    check_distinct("task", [task.config.name for task in tasks])
    cells: list[Cell] = []
    for reference, model in zip(config.models, models, strict=True):
        here = [method for method in methods if method.config.runs_under(reference)]
        for index, task in enumerate(tasks):
            with in_field("tasks", index):
                for method in here:
                    model.check_task(method, task.config)
                materials = model.materials(task, config.limit, config.encoding, config.execution, facts)
            largest = _cells(config, here, config.train_sizes[-1], model, task, materials)
            cells += _tested(largest, task, materials["test_labels"])
            known = {cell.score.key for cell in largest}  # of methods that read no training rows
            for size in config.train_sizes[:-1]:
                smaller = _cells(config, here, size, model, task, materials)
                tested = (_against(cell, smaller, task, materials["test_labels"]) for cell in smaller)
                cells += [cell for cell in tested if cell.score.key not in known]
    return cells


def open_task(index: int, config: CompareConfig, base: Path, data_dir: Path | None) -> Task:
    """A task of a workflow file, by its place there. Raises ConfigError where it cannot be found."""
    with in_field("tasks", index):
        return find_task(config.tasks[index], base, data_dir)


def open_model(index: int, config: CompareConfig, base: Path, facts: FingerprintCache) -> FeatureExtractor:
    """A model of a workflow file, by its place there. Raises ConfigError where it cannot be found, or used so."""
    with in_field("models", index):
        reference = config.models[index]
        model = extractor_kind(reference, base).open(reference, base, facts)
        model.check_encoding(config.encoding)
    return model


def check_distinct(kind: str, names: list[str]) -> None:
    """Results are told apart by names. Raises ConfigError where two are the same."""
    for index, name in enumerate(names):
        if name in names[:index]:
            told = f"two {kind}s are named {name!r}; give one a `name` of its own in a {kind} YAML file"
            raise ConfigError(told, (f"{kind}s", index))


def shown_rows(materials: Materials) -> dict[str, Step]:
    """By split, the step that stores what a person sees of the rows."""
    return {split: materials[f"{split}_rows"] for split in ("train", "test")}


def _cells(
    config: CompareConfig,
    methods: Sequence[ResolvedMethod],
    size: int | str,
    model: FeatureExtractor,
    task: Task,
    materials: Materials,
) -> list[Cell]:
    """The methods at one training size."""
    return [_cell(Entry(config, method, size, model, task, materials)) for method in methods]


def _cell(entry: Entry) -> Cell:
    labels, metric = tuple(entry.task.config.words), entry.task.config.metric
    fits = {seed: entry.fit(seed) for seed in (entry.seeds if entry.is_seeded else (0,))}
    return Cell(
        extractor=entry.model,
        task=entry.task.config.name,
        method=entry.method.label,
        metric=metric,
        seeds=entry.seeds,
        fits=fits,
        score=score_step(entry.where, fits, entry.materials["test_labels"], len(labels), metric),
        train_size=entry.size,
        labels=labels,
        rows=shown_rows(entry.materials),
        trials=entry.trials if entry.method.space else None,
        reference=entry.config.reference,
    )


def _tested(cells: Sequence[Cell], task: Task, labels: Step) -> list[Cell]:
    """Cells of a task with their tests: against the reference method, and against the best of them."""
    best, fits = None, [cell.fits for cell in cells]
    if len(cells) > 1:
        where = f"{cells[0].model} {task.config.name}"
        best = best_step(where, fits, labels, len(task.config.words), cells[0].metric)
    return [
        replace(_against(cell, cells, task, labels), best=best, copy=copy)
        for cell, copy in zip(cells, copies(fits), strict=True)
    ]


def _against(cell: Cell, cells: Sequence[Cell], task: Task, labels: Step) -> Cell:
    """A cell with its test against the reference method, which has none against itself."""
    if cell.method == cell.reference:
        return cell
    reference = next(other for other in cells if other.method == cell.reference)
    where = f"{cell.reference} {cell.score.label.removeprefix('score ')}"
    versus = versus_step(where, cell.fits, reference.fits, labels, len(task.config.words), cell.metric)
    return replace(cell, versus=versus)
