"""What is known of a language model without its weights: how it reads prompts, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Protocol, get_args

from vocabsem_core.names import LabelTokens
from workflows.config.compare import Encoding
from workflows.config.task import TaskConfig, prompt_template
from workflows.errors import ConfigError
from workflows.extractors.base import Described, Outline
from workflows.extractors.prompting import check_scores_words, check_suits
from workflows.findings import Words
from workflows.inputs.catalog import ModelEntry, find_model
from workflows.inputs.gguf import gguf_file
from workflows.inputs.hub import hub_model
from workflows.inputs.models import check_encoding, local_folder, token_limit
from workflows.inputs.row_checks import Reader
from workflows.methods.base import Need
from workflows.methods.resolved import ResolvedMethod


class About(Protocol):
    """What any description of a language model says."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def four_bit(self) -> bool: ...
    @property
    def window(self) -> int | None: ...
    @property
    def layers(self) -> list[str]: ...


class ReadsPrompts(Described):
    """A language model, with its weights or without."""

    gives: ClassVar[frozenset[Need]] = frozenset(get_args(Need))
    about: About

    @property
    def name(self) -> str:
        return self.about.name

    @property
    def layers(self) -> Sequence[str]:
        return self.about.layers

    def check_encoding(self, encoding: Encoding) -> None:
        check_encoding(self.name, self.about.layers, self.about.window, encoding)

    def check_method(self, method: ResolvedMethod) -> None:
        check_suits(method, self.name, self.about.kind, self.about.four_bit)

    def check_task(self, method: ResolvedMethod, task: TaskConfig) -> None:
        check_scores_words(method, self.name, self.about.kind, task)


@dataclass(frozen=True)
class Tokens:
    """A language model's configuration and tokenizer; `model` is without memory."""

    name: str
    tokenizer: Any
    kind: str
    four_bit: bool
    window: int | None
    layers: list[str]
    model: Any

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has."""
        return self.model.get_input_embeddings().weight.shape[0]


@dataclass(frozen=True)
class LanguageModelOutline(ReadsPrompts, Outline):
    """What `validate` asks of a language model."""

    about: Tokens

    def check_method(self, method: ResolvedMethod) -> None:
        """Also refuses a model that the method cannot be used with, such as one without layers to adapt."""
        from vocabsem_core.errors import InputError

        super().check_method(method)
        try:
            method.method.check_model(method.method.Settings.model_validate(method.settings), self.about.model)
        except InputError as error:
            raise ConfigError(f"method {method.label!r}, model {self.name}: {error}", ("settings",)) from error

    def row_problems(
        self, task: TaskConfig, rows: Sequence[tuple[int, Mapping[str, Any]]], file: Path, encoding: Encoding
    ) -> list[str]:
        """Raises InputError where the template alone does not fit the window; then each row must be one it can read."""
        limit = token_limit(self.about.window, encoding)
        if limit is None:
            return []
        template = prompt_template(task, self.about.kind)
        reader = Reader(self.about.tokenizer, template, limit, self.about.kind, self.about.vocabulary)
        reader.check_template(sorted(task.source.columns))
        readable = [(number, row) for number, row in rows if all(isinstance(text, str) for text in row.values())]
        return reader.row_problems(readable, str(file))

    def words(self, task: TaskConfig, rule: LabelTokens) -> Words:
        from vocabsem_core.features.prompts import verbalize

        tokenizer, template = self.about.tokenizer, prompt_template(task, self.about.kind)
        try:
            found = verbalize(tokenizer, template, task.words, rule, self.about.vocabulary)
        except ValueError as error:
            raise ConfigError(f"task {task.name!r}, model {self.name}: {error}") from error
        pieces = [[tokenizer.decode([token]) for token in tokens] for tokens in found.tokens]
        return Words(self.name, found.rule, dict(zip(found.labels, pieces, strict=True)))


def outline(reference: str, base: Path, problems: list[str]) -> LanguageModelOutline:
    """A language model by its configuration and tokenizer, without its weights; a folder must have a head."""
    from vocabsem_core.features.architectures import layer_names
    from vocabsem_core.features.checkpoints import load_tokenizer, model_without_memory
    from vocabsem_core.features.prompts import window_of

    entry = find_model(reference, base, problems)
    place = entry.config
    with _description(entry) as folder:
        kind, model = model_without_memory(folder)
        tokenizer = load_tokenizer(folder)
    four_bit, window = place.quantization == "4bit", window_of(model, tokenizer)
    return LanguageModelOutline(Tokens(place.name, tokenizer, kind, four_bit, window, layer_names(model), model))


@contextmanager
def _description(entry: ModelEntry) -> Iterator[Path]:
    """A folder with a model's configuration and tokenizer.

    Of a model on the hub only these are fetched; a GGUF file is read for them and not dequantised; of a folder the
    head's place is checked.
    """
    from vocabsem_core.features.checkpoints import head_place
    from vocabsem_core.features.gguf import write_description

    place = entry.config
    if place.gguf is not None:
        file = gguf_file(entry)
        with TemporaryDirectory(prefix="vocabsem-gguf-") as made:
            write_description(file, Path(made))
            yield Path(made)
    elif place.hub is not None:
        yield hub_model(place.hub, place.revision, weights=False)
    else:
        head_place(folder := local_folder(entry))
        yield folder
