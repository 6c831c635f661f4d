"""Everything about a workflow file that can be checked without running it, and all that is wrong with it at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workflows.compare.graph import must_differ
from workflows.compare.prompting import must_suit
from workflows.config.compare import CompareConfig, Encoding
from workflows.config.pretrain import PretrainConfig
from workflows.config.sweep import SweepConfig
from workflows.config.task import prompt_template
from workflows.config.yaml_file import naming_lines, read_workflow
from workflows.errors import ConfigError, Place, in_field
from workflows.inputs.catalog import ModelEntry, Task, find_model, find_task
from workflows.inputs.corpus import corpus_files, pieces
from workflows.inputs.hub import hub_model
from workflows.inputs.labels import Labels, label_problems, read_labels, training_problems
from workflows.inputs.models import check_encoding, find_files, token_limit
from workflows.inputs.row_checks import Reader
from workflows.inputs.row_choice import chosen_rows
from workflows.inputs.row_files import read_columns
from workflows.inputs.tables import Split, SplitFile, fields_of_rows, split_file, text_problems
from workflows.methods.resolved import ResolvedMethod, resolve
from workflows.registry import WORKFLOWS
from workflows.runtime.engines import check_reserves
from workflows.steps.registry import STEPS
from workflows.sweep.checks import sweep_method

_SHOWN = 5  # problems of one kind in one file
_Rows = list[tuple[int, dict[str, Any]]]  # numbers in the file, from 0, and fields


@dataclass(frozen=True)
class Words:
    """The label words of a task under a model: label -> its tokens as text."""

    model: str
    rule: str
    tokens: Mapping[str, list[str]]


@dataclass(frozen=True)
class Checked:
    """One task: split -> label -> rows that a run would use, and its words under each model."""

    task: str
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    words: list[Words] = field(default_factory=list)


@dataclass(frozen=True)
class Findings:
    """What was found. `notes` are worth knowing and stop nothing."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tasks: list[Checked] = field(default_factory=list)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """A user's mistake becomes a problem, or several; what follows it in the block is left out."""
        try:
            yield
        except Exception as error:
            if getattr(error, "exit_code", None) != 2:
                raise
            self.problems.extend(str(error).splitlines())


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


def validate(path: Path, data_dir: Path | None) -> Findings:
    """Check a workflow file with all it names: tasks row by row, models by configuration and tokenizer alone."""
    findings = Findings()
    with findings.collecting():
        config = read_workflow(path, WORKFLOWS, findings.problems)
        with findings.collecting(), naming_lines(path):
            check_reserves(config.execution, STEPS)  # of all workflows: which this one has, only its graph says
        if isinstance(config, PretrainConfig):
            _check_pretrain(path, config, data_dir, findings)
        else:
            _check(path, config, data_dir, findings)
    return findings


def _check_pretrain(path: Path, config: PretrainConfig, data_dir: Path | None, findings: Findings) -> None:
    """Read every file of the corpus, and look for the tasks whose texts are measured."""
    base = path.parent.resolve()
    with findings.collecting(), naming_lines(path):
        characters = 0
        for file in corpus_files(config.corpus, base):
            with findings.collecting():
                characters += sum(map(len, pieces(file)))
        findings.notes.append(f"the corpus has {characters:,} characters")
    for index, reference in enumerate(config.evaluation.tasks):
        with findings.collecting(), naming_lines(path), in_field("evaluation", "tasks", index):
            split_file(find_task(reference, base, data_dir, findings.problems), "test")


def _check(path: Path, config: CompareConfig | SweepConfig, data_dir: Path | None, findings: Findings) -> None:
    base, named = path.parent.resolve(), _named(config)
    methods = _methods(path, config, findings)
    trained = any(method.learns or method.demonstrations != "none" for _, method in methods)
    models: list[_Tokens] = []
    for place, reference in named.models:
        with findings.collecting(), naming_lines(path), in_field(*place):
            models.append(model := _described(reference, find_model(reference, base, findings.problems)))
            check_encoding(model.name, model.layers, model.window, config.encoding)
    for place, method in methods:
        for model in models:
            if method.config.runs_under(model.reference):
                with findings.collecting(), naming_lines(path), in_field(*place):
                    must_suit(method, model.name, model.kind, model.four_bit)
                    _check_model(method, place, model)
    tasks: list[Task] = []
    for place, reference in named.tasks:
        with findings.collecting(), naming_lines(path), in_field(*place):
            tasks.append(find_task(reference, base, data_dir, findings.problems))
    for kind, names in (("model", [m.name for m in models]), ("task", [t.config.name for t in tasks])):
        with findings.collecting(), naming_lines(path):
            must_differ(kind, names)
    for task in tasks:
        checked = Checked(task.config.name)
        findings.tasks.append(checked)
        rows = _check_rows(task, config, trained, checked, findings)
        read = {split: rows[split] for split in rows if trained or split == "test"}
        for model in models:
            with findings.collecting():
                _check_prompts(task, model, config.encoding, read, findings)
            # Where no method reads the label words a run does not either.
            if any(method.method.reads_label_words for _, method in methods):
                with findings.collecting():
                    checked.words.append(_words(task, model))


def _methods(path: Path, config: CompareConfig | SweepConfig, findings: Findings) -> list[tuple[Place, ResolvedMethod]]:
    """The methods that can be used, and where each stands in the file; what is wrong with the others is found."""
    base, found = path.parent.resolve(), list[tuple[Place, ResolvedMethod]]()
    if isinstance(config, SweepConfig):
        with findings.collecting(), naming_lines(path):
            return [(("method",), sweep_method(config, base))]
        return found
    for index, method in enumerate(config.methods):
        with findings.collecting(), naming_lines(path):
            found.append((place := ("methods", index), resolve(method, base, place)))
    return found


@dataclass(frozen=True)
class _Named:
    """What a workflow file names, and in which fields."""

    models: list[tuple[Place, str]]
    tasks: list[tuple[Place, str]]


def _named(config: CompareConfig | SweepConfig) -> _Named:
    if isinstance(config, SweepConfig):
        return _Named([(("model",), config.model)], [(("task",), config.task)])
    return _Named(
        [(("models", index), name) for index, name in enumerate(config.models)],
        [(("tasks", index), name) for index, name in enumerate(config.tasks)],
    )


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


def _check_rows(
    task: Task, config: CompareConfig | SweepConfig, trained: bool, checked: Checked, findings: Findings
) -> dict[Split, _Rows]:
    """Counts the rows of each label into `checked`. Returns the rows that a run would use, by split."""
    rows: dict[Split, _Rows] = {}
    splits: tuple[tuple[Split, int | None], ...] = (("train", config.limit.train), ("test", config.limit.test))
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


def findings_document(path: Path, findings: Findings) -> dict[str, Any]:
    """What `validate --json` prints."""
    return {"file": str(path), "valid": not findings.problems, **asdict(findings)}


def findings_text(path: Path, findings: Findings) -> str:
    """What was found, for a person to read."""
    lines = [line for checked in findings.tasks for line in _task_lines(checked)]
    lines += [f"note     {note}" for note in findings.notes]
    lines += [f"problem  {problem}" for problem in findings.problems]
    count = len(findings.problems)
    return "\n".join([*lines, f"{count} problem{'s' * (count > 1)} in {path}" if count else "valid"])


def _task_lines(checked: Checked) -> list[str]:
    rows = [
        f"  {split:5} {sum(counts.values()):>9,} rows   {', '.join(f'{name} {n:,}' for name, n in counts.items())}"
        for split, counts in checked.rows.items()
    ]
    words = [
        f"  words of {found.model} ({found.rule} token{'s' * (found.rule == 'mean')}): "
        + ", ".join(f"{label} {' + '.join(map(repr, tokens))}" for label, tokens in found.tokens.items())
        for found in checked.words
    ]
    return [checked.task, *rows, *words]
