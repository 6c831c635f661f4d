"""Where a layer's states are compared with label rows: one space for each basis, made of stored states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from orchestration.store.artifacts import Artifact
from vocabsem_core.features.checkpoints import load_model
from vocabsem_core.features.heads import OutputHead, head_of
from vocabsem_core.lens.layer_basis import depth_of, fit_affine, interpolated
from vocabsem_core.lens.readings import recomposition
from vocabsem_core.lens.trace import Tail, last_layer
from vocabsem_core.names import LayerBasis
from vocabsem_core.semantics.basis import SemanticBasis
from workflows.errors import ConfigError
from workflows.inputs.models import check_unchanged
from workflows.methods.inputs.states import read_spectrum, read_states

_THROUGH_TAIL: tuple[LayerBasis, ...] = ("head", "affine")


@dataclass(frozen=True)
class Vocabulary:
    """A model's two sides, and the label words on both.

    Attributes:
        model: loaded, in evaluation mode.
        kept: rows of the vocabulary that have a token.
        basis: the semantic basis of its head.
        tokens: those that stand for each class.
    """

    model: Any
    kept: int
    basis: SemanticBasis
    tokens: Sequence[Sequence[int]]

    @cached_property
    def head(self) -> OutputHead:
        """The head without the padding of the vocabulary."""
        return head_of(self.model).rows(slice(self.kept))

    @cached_property
    def embedding(self) -> Tensor:
        """The rows of the input embedding, [v, width of the blocks]."""
        return self.model.get_input_embeddings().weight.detach()[: self.kept]

    @cached_property
    def tail(self) -> Tail:
        return Tail(self.model)

    @cached_property
    def last(self) -> str:
        """The last block's output, by name."""
        return last_layer(self.model)

    def label_rows(self, basis: LayerBasis, layer: str, shrinkage: float) -> Tensor:
        """What stands for each class at a layer, [c, d]: of several tokens the mean."""
        if basis == "embedding":
            return self._class_mean(self.embedding)
        if basis in _THROUGH_TAIL:
            return self._of_head(shrinkage)
        raw = basis == "interpolated-raw"
        return interpolated(self._class_mean(self.embedding), self._of_head(shrinkage), depth_of(layer, self.last), raw)

    def recomposition(self, basis: LayerBasis, layer: str) -> Tensor:
        """What gives back a state from its logits, by the rows of a basis at a layer: see `readings.recomposition`."""
        embedding, head = self._unit_sides if basis == "interpolated" else self._sides
        if basis in _THROUGH_TAIL:
            return head
        return embedding if basis == "embedding" else torch.lerp(embedding, head, depth_of(layer, self.last))

    @cached_property
    def _sides(self) -> tuple[Tensor, Tensor]:
        """By the embedding's rows, and by those of the head's basis: W times its own pseudoinverse."""
        own = self.basis.vectors @ self.basis.vectors.T
        return recomposition(self.head.weight, self.embedding), own

    @cached_property
    def _unit_sides(self) -> tuple[Tensor, Tensor]:
        """The same of rows that are made unit vectors."""
        weight = self.head.weight.float()
        sides = self.embedding.float(), self.basis.rows(weight)
        embedding, head = (recomposition(weight, functional.normalize(rows, dim=1)) for rows in sides)
        return embedding, head

    def _of_head(self, shrinkage: float) -> Tensor:
        if shrinkage not in self._rows_known:
            flat = [token for tokens in self.tokens for token in tokens]
            rows = self.basis.rows(self.head.weight[flat].float(), shrinkage)
            parts = rows.split([len(tokens) for tokens in self.tokens])
            self._rows_known[shrinkage] = torch.stack([part.mean(dim=0) for part in parts])
        return self._rows_known[shrinkage]

    @cached_property
    def _rows_known(self) -> dict[float, Tensor]:
        """Of the labels, head side, by shrinkage: every layer asks for the same."""
        return {}

    def _class_mean(self, rows: Tensor) -> Tensor:
        return torch.stack([rows[list(tokens)].float().mean(dim=0) for tokens in self.tokens])

    def logits(self, states: Tensor) -> Tensor:
        """What the model says of each class, [n, c], for states of the head's space."""
        flat = [token for tokens in self.tokens for token in tokens]
        found = self.head.rows(flat).logits(states)
        parts = found.split([len(tokens) for tokens in self.tokens], dim=1)
        return torch.stack([part.mean(dim=1) for part in parts], dim=1)


def read_model(place: Mapping[str, Any]) -> Any:
    """A model that must not have changed, in float32. `place`: folder, stamp and content."""
    folder = Path(place["folder"])
    check_unchanged(folder, place["stamp"], place["content"])
    return load_model(folder, "float32", "cpu")


def vocabulary_of(model: Any, kept: int, verbalizer: Artifact, spectrum: Artifact) -> Vocabulary:
    """A loaded model with a task's label words."""
    tokens = verbalizer.json("verbalizer.json")["tokens"]
    return Vocabulary(model, kept, read_spectrum(spectrum), tokens)


@dataclass(frozen=True)
class Space:
    """States of a layer where they are compared.

    Attributes:
        bases: those whose rows stand in it.
        train, test: [n, d], float32.
        through_head: whether it is the space that the LM head reads.
    """

    bases: Sequence[LayerBasis]
    train: Tensor
    test: Tensor
    through_head: bool


def spaces(
    layer: str, bases: Sequence[LayerBasis], inputs: Mapping[str, Artifact], vocabulary: Vocabulary
) -> Iterator[Space]:
    """The spaces of a layer, one at a time. At `head` all but the head-side basis is beside the point."""
    train, test = (read_states(inputs[split], layer) for split in ("train", "test"))
    if layer == "head":
        yield Space(["head"], train, test, True)
        return
    if "head" in bases:
        yield Space(["head"], *_through_tail(train, test, vocabulary), True)
    if plain := [basis for basis in bases if basis not in _THROUGH_TAIL]:
        _check_width(plain, train.shape[1], vocabulary)
        yield Space(plain, train, test, False)
    if "affine" in bases:
        learned = fit_affine(train, read_states(inputs["train"], vocabulary.last))
        yield Space(["affine"], *_through_tail(learned(train), learned(test), vocabulary), True)


def _through_tail(train: Tensor, test: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Both by one call: the model runs for it, if by one token."""
    first, second = vocabulary.tail(torch.cat([train, test])).split([len(train), len(test)])
    return first, second


def _check_width(bases: Sequence[LayerBasis], width: int, vocabulary: Vocabulary) -> None:
    """Raises ConfigError where rows of the embedding's side cannot be compared with the blocks' states."""
    embedding, head = vocabulary.embedding.shape[1], vocabulary.head.weight.shape[1]
    if {embedding, head} != {width}:
        raise ConfigError(
            f"bases {', '.join(bases)}: the blocks' states have {width} dimensions, the input embedding {embedding} "
            f"and the head's input {head}; keep of `bases` head and affine"
        )
