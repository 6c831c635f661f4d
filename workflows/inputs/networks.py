"""A network: a torch module that ends in a linear layer, and how it reads a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workflows.errors import ConfigError, nearest
from workflows.inputs.python_files import line_of, naming_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vocabsem_core.features.modules import ModuleEncoder


@dataclass(frozen=True)
class Network:
    """What a user's function returns: a module that ends in a linear layer, and how it reads a row.

    Attributes:
        module: the module, with its weights.
        read: makes an input of a row, which is a mapping of the task's fields: numbers, text, images (uint8, [h, w] or
            [h, w, channels]), sounds (`rate` and `samples`), arrays. It returns a tensor without the axis of a batch.
        example: one such input, such as zeros: its shape and type are those of every input.
        classes: names of the head's rows, by which the `words` of a task name them; None: "0", "1", and so on.
        head: the name of the linear layer, where the module returns the outputs of several.
        files: what else the function reads, for a job that takes it along to a cluster.
    """

    module: nn.Module
    read: Callable[[Mapping[str, Any]], Tensor]
    example: Tensor
    classes: Sequence[str] | None = None
    head: str | None = None
    files: Sequence[str | Path] = ()


class Source(Protocol):
    """What gives a network: a function of a user's file, or a pretrained model.

    Attributes:
        file: named in errors.
        title: of the network, in results.
        digest: of what decides how inputs are made.
        files: what a node must have.
    """

    @property
    def file(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def files(self) -> tuple[str, ...]: ...

    def call(self) -> Any:
        """Whatever it gives; a `Network` is expected."""


@dataclass(frozen=True)
class OpenNetwork:
    """A network that was called up.

    Attributes:
        source: that gave it.
        network: what it gave.
        encoder: reads states with its module.
        weights: the digest of its parameters and buffers, by name.
    """

    source: Source
    network: Network
    encoder: ModuleEncoder
    weights: str

    @property
    def classes(self) -> list[str]:
        """Names of the head's rows."""
        rows = len(self.encoder.head.weight)
        return list(map(str, range(rows))) if self.network.classes is None else list(self.network.classes)

    def rows_of(self, task: str, words: Mapping[str, str]) -> dict[str, int]:
        """The head's row of each label. Raises ConfigError for a word that names none, or the same as another."""
        found: dict[str, int] = {}
        for label, word in words.items():
            if word not in self.classes:
                hint = nearest(word, self.classes)
                raise ConfigError(f"task {task!r}: label {label!r}: {self.source} has no class {word!r}; {hint}")
            row = self.classes.index(word)
            if same := [other for other, taken in found.items() if taken == row]:
                raise ConfigError(f"task {task!r}: labels {same[0]!r} and {label!r} are both class {word!r}")
            found[label] = row
        return found

    def input_of(self, row: Mapping[str, Any], name: str) -> Tensor:
        """A row as the module takes it. Raises ConfigError, with the line, for what `read` raises or returns."""
        read = self.network.read
        with naming_line(self.source.file, f"{_named(read)}, {name}"):
            found = read(row)
        if problem := self.encoder.check(found):
            raise ConfigError(f"{self.source.file}{line_of(read)}: {_named(read)}, {name}: the input {problem}")
        return found


def _named(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', 'read')}()"
