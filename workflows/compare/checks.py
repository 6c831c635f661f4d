"""What `validate` checks of a comparison, and of all that names models, tasks and methods as it does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from workflows.compare.graph import check_distinct
from workflows.config.compare import CompareConfig, Encoding, Limit
from workflows.errors import ConfigError, Place
from workflows.extractors.base import ExtractorKind, Outline
from workflows.extractors.registry import extractor_kind
from workflows.findings import Checked, Checking, Findings
from workflows.inputs.catalog import Task, find_task
from workflows.inputs.labels import (
    Labels,
    label_problems,
    read_labels,
    rows_of,
    smaller_label,
    smaller_labels,
    training_problems,
)
from workflows.inputs.row_choice import chosen_rows
from workflows.inputs.tables import Split, SplitFile, fields_of_rows, read_split, split_file
from workflows.kind import Names
from workflows.methods.resolved import ResolvedMethod, resolve

_SHOWN = 5  # problems of one kind in one file
_Rows = list[tuple[int, dict[str, Any]]]  # numbers in the file, from 0, and fields
Methods = Sequence[tuple[Place, ResolvedMethod]]  # each with its field


def names_of(config: CompareConfig) -> Names:
    """What a comparison names."""
    return Names(
        models=tuple((("models", index), name) for index, name in enumerate(config.models)),
        tasks=tuple((("tasks", index), name) for index, name in enumerate(config.tasks)),
        methods=tuple((("methods", index), method.reference) for index, method in enumerate(config.methods)),
    )


def check_comparison(config: CompareConfig, checking: Checking) -> None:
    """Every method, model and task, and each with the others."""
    methods: list[tuple[Place, ResolvedMethod]] = []
    for index, method in enumerate(config.methods):
        with checking.field():
            methods.append((place := ("methods", index), resolve(method, checking.base, place)))
    check_parts(names_of(config), methods, config.encoding, config.limit, checking)
    if any(method.learns for _, method in methods):
        _note_smaller_labels(config.train_sizes, checking.findings)


def check_parts(names: Names, methods: Methods, encoding: Encoding, limits: Limit, checking: Checking) -> None:
    """Models without their weights, tasks row by row, and whether the methods can use them.

    Args:
        names: the models and tasks.
        methods: those that can be used at all.
        encoding: how prompts become states.
        limits: rows of each split that a run would use.
        checking: where it is told.
    """
    findings = checking.findings
    kinds = {reference: extractor_kind(reference, checking.base) for _, reference in names.models}
    models: dict[str, Outline] = {}
    for place, reference in names.models:
        with checking.field(*place):
            models[reference] = kinds[reference].outline(reference, checking.base, findings.problems)
            models[reference].check_encoding(encoding)
    for place, method in methods:
        for reference, model in models.items():
            if method.config.runs_under(reference):
                with checking.field(*place):
                    _check_method(method, place, model)
    tasks: list[Task] = []
    for place, reference in names.tasks:
        with checking.field(*place):
            tasks.append(find_task(reference, checking.base, checking.data_dir, findings.problems))
    for noun, found in (("model", [m.name for m in models.values()]), ("task", [t.config.name for t in tasks])):
        with checking.field():
            check_distinct(noun, found)
    trained = any(method.learns or method.demonstrations != "none" for _, method in methods)
    for task in tasks:
        checked = Checked(task.config.name)
        findings.tasks.append(checked)
        rows = _check_rows(task, limits, trained, set(kinds.values()), checked, findings)
        read = {split: rows[split] for split in rows if trained or split == "test"}
        for reference, model in models.items():
            with findings.collecting():
                for split, used in read.items():
                    file = split_file(task, split).path
                    problems = model.row_problems(task.config, used, file, encoding)
                    findings.problems.extend(_first(problems, str(file)))
            here = [method for _, method in methods if method.config.runs_under(reference)]
            for method in here:
                with findings.collecting():
                    model.check_task(method, task.config)
            # Where no method reads the label words a run does not either.
            for rule in dict.fromkeys(method.label_tokens(task.config) for method in here if method.reads_label_words):
                with findings.collecting():
                    checked.words.append(model.words(task.config, rule))


def _check_method(method: ResolvedMethod, place: Place, model: Outline) -> None:
    """Raises ConfigError, with the field, for a model that the method cannot be used with."""
    try:
        model.check_method(method)
    except ConfigError as error:
        raise ConfigError(str(error), (*place, *error.place)) from error


def _note_smaller_labels(sizes: Sequence[int | str], findings: Findings) -> None:
    """Tell of each label the smallest training size that it has too few rows for."""
    for checked in findings.tasks:
        found: dict[str, tuple[int, int]] = {}
        for size in sorted((size for size in sizes if isinstance(size, int)), reverse=True):
            found |= {
                name: (count, size) for name, count in smaller_labels(checked.rows.get("train", {}), size).items()
            }
        findings.notes.extend(f"task {checked.task!r}: {smaller_label(name, *why)}" for name, why in found.items())


def _check_rows(
    task: Task, limits: Limit, trained: bool, kinds: Collection[ExtractorKind], checked: Checked, findings: Findings
) -> dict[Split, _Rows]:
    """Counts the rows of each label into `checked`. Returns the rows that a run would use, by split."""
    rows: dict[Split, _Rows] = {}
    splits: tuple[tuple[Split, int | None], ...] = (("train", limits.train), ("test", limits.test))
    found: dict[Path, tuple[SplitFile, Labels]] = {}
    for split, limit in splits:
        with findings.collecting():
            file, labels, rows[split] = _rows_read(task, split, limit, kinds, findings)
            checked.rows[split] = rows_of(task.config.words, (labels.numbers[place] for place, _ in rows[split]))
            found[file.path] = file, labels
    if problems := label_problems(list(found.values()), list(task.config.words)):
        findings.problems.extend(_first(problems, f"task {checked.task!r}"))
        return rows  # what labels have no rows follows from it
    train = checked.rows.get("train", {})
    told = findings.problems if trained else findings.notes
    told.extend(f"task {checked.task!r}: {problem}" for problem in (training_problems(train) if train else ()))
    for name, count in train.items():
        if trained and count == 1:
            findings.notes.append(
                f"task {checked.task!r}: label {name!r} has one training row, and so no validation row"
            )
    for name, count in checked.rows.get("test", {}).items():
        if not count:
            findings.notes.append(f"task {checked.task!r}: label {name!r} has no test row")
    return rows


def _rows_read(
    task: Task, split: Split, limit: int | None, kinds: Collection[ExtractorKind], findings: Findings
) -> tuple[SplitFile, Labels, _Rows]:
    """The labels of a split's file, and the rows that a run would use."""
    file, names = split_file(task, split), list(task.config.words)
    read = read_split(file, file.names)
    if file.part is None or split == "train":  # else it is the same file
        findings.notes.extend(read.notes)
        for kind in kinds:
            findings.problems.extend(_first(kind.field_problems(file, read.values), str(file.path)))
    labels, rows = read_labels(file, read.values, names), fields_of_rows(file, read.values)
    return file, labels, [(place, rows[place]) for place in chosen_rows(file, read.values, names, split, limit)]


def _first(problems: Sequence[str], file: str) -> list[str]:
    more = len(problems) - _SHOWN
    return [*problems[:_SHOWN], *([f"{file}: {more:,} more rows of this kind"] if more > 0 else [])]
