"""What `validate` checks of a comparison, and of all that names models, tasks and methods as it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.compare.graph import check_distinct
from workflows.compare.prompting import check_suits
from workflows.config.compare import CompareConfig, Encoding, Limit
from workflows.config.task import prompt_template
from workflows.errors import ConfigError, Place
from workflows.findings import Checked, Checking, Findings, Words
from workflows.inputs.catalog import ModelEntry, Task, find_model, find_task
from workflows.inputs.hub import hub_model
from workflows.inputs.labels import Labels, label_problems, read_labels, training_problems
from workflows.inputs.models import check_encoding, find_files, token_limit
from workflows.inputs.row_checks import Reader
from workflows.inputs.row_choice import chosen_rows
from workflows.inputs.row_files import read_columns
from workflows.inputs.tables import Split, SplitFile, fields_of_rows, split_file, text_problems
from workflows.kind import Names
from workflows.methods.resolved import ResolvedMethod, resolve

_SHOWN = 5  # problems of one kind in one file
_Rows = list[tuple[int, dict[str, Any]]]  # numbers in the file, from 0, and fields
Methods = Sequence[tuple[Place, ResolvedMethod]]  # each with its field


@dataclass(frozen=True)
class _Tokens:
    """What can be known of a model without its weights."""

    reference: str  # as the workflow file names it
    name: str
    tokenizer: Any
    kind: str
    four_bit: bool
    window: int | None
    layers: list[str]
    model: Any  # without memory

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has."""
        return self.model.get_input_embeddings().weight.shape[0]


def names_of(config: CompareConfig) -> Names:
    """What a comparison names."""
    return Names(
        models=tuple((("models", index), name) for index, name in enumerate(config.models)),
        tasks=tuple((("tasks", index), name) for index, name in enumerate(config.tasks)),
        methods=tuple((("methods", index), method.method) for index, method in enumerate(config.methods)),
    )


def check_comparison(config: CompareConfig, checking: Checking) -> None:
    """Every method, model and task, and each with the others."""
    methods: list[tuple[Place, ResolvedMethod]] = []
    for index, method in enumerate(config.methods):
        with checking.field():
            methods.append((place := ("methods", index), resolve(method, checking.base, place)))
    check_parts(names_of(config), methods, config.encoding, config.limit, checking)


def check_parts(names: Names, methods: Methods, encoding: Encoding, limits: Limit, checking: Checking) -> None:
    """Models by configuration and tokenizer alone, tasks row by row, and whether the methods can use them.

    Args:
        names: the models and tasks.
        methods: those that can be used at all.
        encoding: how prompts become states.
        limits: rows of each split that a run would use.
        checking: where it is told.
    """
    findings = checking.findings
    models: list[_Tokens] = []
    for place, reference in names.models:
        with checking.field(*place):
            entry = find_model(reference, checking.base, findings.problems)
            models.append(model := _described(reference, entry))
            check_encoding(model.name, model.layers, model.window, encoding)
    for place, method in methods:
        for model in models:
            if method.config.runs_under(model.reference):
                with checking.field(*place):
                    check_suits(method, model.name, model.kind, model.four_bit)
                    _check_model(method, place, model)
    tasks: list[Task] = []
    for place, reference in names.tasks:
        with checking.field(*place):
            tasks.append(find_task(reference, checking.base, checking.data_dir, findings.problems))
    for kind, found in (("model", [m.name for m in models]), ("task", [t.config.name for t in tasks])):
        with checking.field():
            check_distinct(kind, found)
    trained = any(method.learns or method.demonstrations != "none" for _, method in methods)
    # Where no method reads the label words a run does not either.
    reads_words = any(method.reads_label_words for _, method in methods)
    for task in tasks:
        checked = Checked(task.config.name)
        findings.tasks.append(checked)
        rows = _check_rows(task, limits, trained, checked, findings)
        read = {split: rows[split] for split in rows if trained or split == "test"}
        for model in models:
            with findings.collecting():
                _check_prompts(task, model, encoding, read, findings)
            if reads_words:
                with findings.collecting():
                    checked.words.append(_words(task, model))


def _described(reference: str, entry: ModelEntry) -> _Tokens:
    """Of a model on the hub only configuration and tokenizer are fetched; of a folder the head's place is checked."""
    from vocabsem_core.features.architectures import layer_names
    from vocabsem_core.features.checkpoints import head_place, load_tokenizer, model_without_memory
    from vocabsem_core.features.prompts import window_of

    place = entry.config
    if place.hub is not None:
        folder = hub_model(place.hub, place.revision, weights=False)
    else:
        folder = find_files(entry)
        head_place(folder)
    kind, model = model_without_memory(folder)
    tokenizer = load_tokenizer(folder)
    four_bit, window = place.quantization == "4bit", window_of(model, tokenizer)
    return _Tokens(reference, place.name, tokenizer, kind, four_bit, window, layer_names(model), model)


def _check_rows(task: Task, limits: Limit, trained: bool, checked: Checked, findings: Findings) -> dict[Split, _Rows]:
    """Counts the rows of each label into `checked`. Returns the rows that a run would use, by split."""
    rows: dict[Split, _Rows] = {}
    splits: tuple[tuple[Split, int | None], ...] = (("train", limits.train), ("test", limits.test))
    found: dict[Path, tuple[SplitFile, Labels]] = {}
    for split, limit in splits:
        with findings.collecting():
            file, labels, rows[split] = _rows_read(task, split, limit, findings)
            counts = Counter(labels.numbers[place] for place, _ in rows[split])
            checked.rows[split] = {name: counts[number] for number, name in enumerate(task.config.words)}
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


def _rows_read(task: Task, split: Split, limit: int | None, findings: Findings) -> tuple[SplitFile, Labels, _Rows]:
    """The labels of a split's file, and the rows that a run would use."""
    file, names = split_file(task, split), list(task.config.words)
    read = read_columns(file.path, file.names)
    if file.part is None or split == "train":  # else it is the same file
        findings.notes.extend(read.notes)
        findings.problems.extend(_first(text_problems(file, read.values), str(file.path)))
    labels, rows = read_labels(file, read.values, names), fields_of_rows(file, read.values)
    return file, labels, [(place, rows[place]) for place in chosen_rows(file, read.values, names, split, limit)]


def _first(problems: Sequence[str], file: str) -> list[str]:
    more = len(problems) - _SHOWN
    return [*problems[:_SHOWN], *([f"{file}: {more:,} more rows of this kind"] if more > 0 else [])]


def _check_prompts(
    task: Task, model: _Tokens, encoding: Encoding, rows: Mapping[Split, _Rows], findings: Findings
) -> None:
    """The template must fit the window with nothing filled in; then each row must be one that a run can read."""
    template, limit = prompt_template(task.config, model.kind), token_limit(model.window, encoding)
    if limit is None:
        return
    reader = Reader(model.tokenizer, template, limit, model.kind, model.vocabulary)
    reader.check_template(sorted(task.config.source.columns))
    for split, found in rows.items():
        file = split_file(task, split).path
        readable = [(number, row) for number, row in found if all(isinstance(text, str) for text in row.values())]
        findings.problems.extend(_first(reader.row_problems(readable, str(file)), str(file)))


def _check_model(method: ResolvedMethod, place: Place, model: _Tokens) -> None:
    """Raises ConfigError for a model that the method cannot be used with, such as one without layers to adapt."""
    from vocabsem_core.errors import InputError

    try:
        method.method.check_model(method.method.Settings.model_validate(method.settings), model.model)
    except InputError as error:
        told = f"method {method.label!r}, model {model.name}: {error}"
        raise ConfigError(told, (*place, "settings")) from error


def _words(task: Task, model: _Tokens) -> Words:
    from vocabsem_core.features.prompts import verbalize

    template = prompt_template(task.config, model.kind)
    try:
        rule = task.config.label_tokens
        found = verbalize(model.tokenizer, template, task.config.words, rule, model.vocabulary)
    except ValueError as error:
        raise ConfigError(f"task {task.config.name!r}, model {model.name}: {error}") from error
    pieces = [[model.tokenizer.decode([token]) for token in tokens] for tokens in found.tokens]
    return Words(model.name, found.rule, dict(zip(found.labels, pieces, strict=True)))
