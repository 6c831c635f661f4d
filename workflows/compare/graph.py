"""The `compare` workflow: methods x tasks x models, as a graph of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestration.graph import Step
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.compare.prompting import check_suits, prompted
from workflows.config.compare import CompareConfig, Encoding, Execution, Limit
from workflows.errors import ConfigError, in_field
from workflows.inputs.catalog import Task, find_model, find_task
from workflows.inputs.models import Model, check_encoding, describe
from workflows.inputs.row_choice import rows_digest
from workflows.inputs.tables import Split, column_digests, row_count, split_file
from workflows.methods.resolved import ResolvedMethod, resolve
from workflows.steps.best import best_step
from workflows.steps.data import labels_step, texts_step, verbalizer_step
from workflows.steps.demonstrations import content_free_step
from workflows.steps.finetune import place_of, reading_of
from workflows.steps.fit import Conditions, score_step
from workflows.steps.method_steps import fit_step, search_step
from workflows.steps.model import basis_step, embedding_step, encode_step, head_step
from workflows.steps.paired_test import versus_step

_SEARCH_SEED = 0  # whatever seeds are fitted: another seed in the list must not change the settings of the others


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of the table: a method on a task under a model.

    Attributes:
        fits: the fits that were made, by seed: one where the seed cannot change anything.
        seeds: all seeds the score holds for.
        train_size: rows per class, or "full".
        labels: names of the classes, in order.
        model_weights: how many the language model has.
        trials: the search budget; None where there is nothing to tune.
        reference: the method it is tested against, by name.
        versus: the step that does so; None for the reference itself, and for all but the largest training size.
        best: the step that finds the best method of the task and tests all others against it; None for all but the
            largest training size, and where there is one method alone.
    """

    model: str
    task: str
    method: str
    metric: str
    seeds: tuple[int, ...]
    fits: Mapping[int, Step]
    score: Step
    train_size: int | str
    labels: tuple[str, ...]
    model_weights: int
    trials: int | None
    reference: str
    versus: Step | None = None
    best: Step | None = None

    @property
    def place(self) -> tuple[str, str, str, int | str]:
        """What tells its result from the others."""
        return self.model, self.task, self.method, self.train_size


def comparison(config: CompareConfig, base: Path, data_dir: Path | None, facts: FingerprintCache) -> list[Cell]:
    """The graph of a workflow file, by its final steps. Reads what is needed to know what the keys are made from.

    `base` is the folder that relative paths start from. Raises ConfigError for what cannot be found.
    """
    methods = [resolve(method, base, ("methods", index)) for index, method in enumerate(config.methods)]
    tasks = [_task(index, reference, base, data_dir) for index, reference in enumerate(config.tasks)]
    models = [_model(index, config, base, facts) for index in range(len(config.models))]
    for index, method in enumerate(methods):
        with in_field("methods", index):
            for reference, model in zip(config.models, models, strict=True):
                if method.config.runs_under(reference):
                    check_suits(method, model.name, model.kind, model.four_bit)
    check_distinct("model", [model.name for model in models])
    check_distinct("task", [task.config.name for task in tasks])
    cells: list[Cell] = []
    for reference, model in zip(config.models, models, strict=True):
        here = [method for method in methods if method.config.runs_under(reference)]
        for index, task in enumerate(tasks):
            with in_field("tasks", index):
                materials = materials_steps(model, task, config.limit, config.encoding, config.execution, facts)
            largest = _cells(config, here, config.train_sizes[-1], model, task, materials)
            cells += _tested(largest, task, materials["test_labels"])
            known = {cell.score.key for cell in largest}  # of methods that read no training rows
            for size in config.train_sizes[:-1]:
                smaller = _cells(config, here, size, model, task, materials)
                cells += [cell for cell in smaller if cell.score.key not in known]
    return cells


def _task(index: int, reference: str, base: Path, data_dir: Path | None) -> Task:
    with in_field("tasks", index):
        return find_task(reference, base, data_dir)


def _model(index: int, config: CompareConfig, base: Path, facts: FingerprintCache) -> Model:
    with in_field("models", index):
        model = describe(find_model(config.models[index], base), facts)
        check_encoding(model.name, model.layers, model.window, config.encoding)
    return model


def check_distinct(kind: str, names: list[str]) -> None:
    """Results are told apart by names. Raises ConfigError where two are the same."""
    for index, name in enumerate(names):
        if name in names[:index]:
            told = f"two {kind}s are named {name!r}; give one a `name` of its own in a {kind} YAML file"
            raise ConfigError(told, (f"{kind}s", index))


def materials_steps(
    model: Model, task: Task, limits: Limit, encoding: Encoding, execution: Execution, facts: FingerprintCache
) -> dict[str, Step]:
    """Every step a method may read, by role. A method takes what it needs; the rest is never run."""
    steps = {"verbalizer": verbalizer_step(model, task), "head": head_step(model), "basis": basis_step(model)}
    steps["embedding"] = embedding_step(model, task, steps["verbalizer"])
    splits: tuple[tuple[Split, int | None], ...] = (("train", limits.train), ("test", limits.test))
    for split, limit in splits:
        file = split_file(task, split)
        digests = column_digests(file, facts)
        rows = rows_digest(file, list(task.config.words), split, limit, facts)
        texts = texts_step(task, split, file, digests, row_count(file, facts), limit, rows)
        steps[f"{split}_texts"] = texts
        steps[split] = encode_step(model, task, texts, encoding, execution)
        steps[f"{split}_labels"] = labels_step(task, split, file, digests)
    content_free = content_free_step(task, model.kind)
    steps["content_free"] = encode_step(model, task, content_free, encoding, execution)
    return steps


def _cells(
    config: CompareConfig,
    methods: Sequence[ResolvedMethod],
    size: int | str,
    model: Model,
    task: Task,
    materials: Mapping[str, Step],
) -> list[Cell]:
    """The methods at one training size."""
    return [_cell(config, method, size, model, task, materials) for method in methods]


def _cell(
    config: CompareConfig,
    method: ResolvedMethod,
    size: int | str,
    model: Model,
    task: Task,
    materials: Mapping[str, Step],
) -> Cell:
    named = f" {_rows(size)}" if len(config.train_sizes) > 1 else ""
    where = f"{model.name} {task.config.name} {method.label}{named}"
    labels, metric = tuple(task.config.words), task.config.metric
    reading, place = reading_of(model, task, config.encoding), place_of(model, config.execution)
    conditions = Conditions(labels, metric, size, reading, place)
    seeded = method.depends_on_seed(size)
    asked = method.config.seeds or config.seeds
    seeds = asked if seeded else (0,)
    trials = config.search.trials if method.config.trials is None else method.config.trials

    def drawn(seed: int) -> Mapping[str, Step]:
        return prompted(config, method, size, model, task, materials, seed if seeded else 0)

    search = search_step(method, where, drawn(_SEARCH_SEED), conditions, trials, _SEARCH_SEED)
    fits = {seed: fit_step(method, where, drawn(seed), conditions, seed, search) for seed in seeds}
    score = score_step(where, fits, materials["test_labels"], len(labels), metric)
    return Cell(
        model=model.name,
        task=task.config.name,
        method=method.label,
        metric=metric,
        seeds=asked,
        fits=fits,
        score=score,
        train_size=size,
        labels=labels,
        model_weights=model.parameters,
        trials=trials if method.space else None,
        reference=config.reference,
    )


def _rows(size: int | str) -> str:
    return "all rows" if size == "full" else f"{size} rows per class"


def _tested(cells: Sequence[Cell], task: Task, labels: Step) -> list[Cell]:
    """Cells of a task with their tests: against the reference method, and against the best of them."""
    best = None
    if len(cells) > 1:
        where = f"{cells[0].model} {task.config.name}"
        best = best_step(where, [cell.fits for cell in cells], labels, len(task.config.words), cells[0].metric)
    return [replace(_against(cell, cells, task, labels), best=best) for cell in cells]


def _against(cell: Cell, cells: Sequence[Cell], task: Task, labels: Step) -> Cell:
    """A cell with its test against the reference method, which has none against itself."""
    if cell.method == cell.reference:
        return cell
    reference = next(other for other in cells if other.method == cell.reference)
    where = f"{cell.reference} {cell.model} {cell.task} {cell.method}"
    versus = versus_step(where, cell.fits, reference.fits, labels, len(task.config.words), cell.metric)
    return replace(cell, versus=versus)
