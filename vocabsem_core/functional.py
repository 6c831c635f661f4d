"""From a model and texts to features, a semantic basis, a calibrator and a linear probe, in a few calls.

The functions take a transformers language model with its head and its fast tokenizer. For full control use what they
are made of: `Encoder`, `semantic_basis`, `calibration.batched_training`, `baselines.linear_probe`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vocabsem_core.baselines.linear import probe_logits
from vocabsem_core.baselines.linear_probe import fit_probe
from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack
from vocabsem_core.calibration.modules import Calibration, CalibrationSettings, Labelled, calibrated_logits
from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import kind_of
from vocabsem_core.features.encoder import BATCH_TOKENS, Encoder
from vocabsem_core.features.heads import head_of
from vocabsem_core.features.prompts import tokenize, verbalize, window_of
from vocabsem_core.names import RowTokens
from vocabsem_core.semantics.basis import SemanticBasis, semantic_basis

_UNLIMITED = 10**9
_VALIDATION_SHARE = 0.2


def encode_texts(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    template: str = "{text}",
    layers: Sequence[str] = ("head",),
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, Float[Tensor, "n d"]]:
    """The hidden states of texts, where the model would predict the label.

    Args:
        model: a transformers language model with its head, in evaluation mode.
        tokenizer: its fast tokenizer.
        texts: n texts. A prompt that is too long for the model loses tokens from the left of its text.
        template: the prompt, with `{text}` where the text goes, and of a masked model `{mask}`.
        layers: `head` is the input of the LM head, `layer_00` the input of the first block, `layer_01` its output, and
            so on; with `:mean` at the end, the mean over the prompt's tokens.
        batch_tokens: tokens per batch, padding included.

    Returns:
        For each layer its states, [n, d], float32, on the CPU.

    Raises:
        InputError: for a layer that the model does not have, or a template it cannot read.

    Example:
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> model = AutoModelForCausalLM.from_pretrained(folder).eval()
        >>> tokenizer = AutoTokenizer.from_pretrained(folder)
        >>> states = encode_texts(model, tokenizer, ["a fine film", "a dull film"], layers=["layer_01", "head"])
        >>> [(layer, len(rows)) for layer, rows in states.items()]
        [('layer_01', 2), ('head', 2)]
    """
    limit = window_of(model, tokenizer) or _UNLIMITED
    closing = kind_of(model.config) != "causal"
    prompts = tokenize(tokenizer, template, [{"text": text} for text in texts], limit, closing)
    positions = [prompt.position for prompt in prompts]
    states = Encoder(model, layers).encode([prompt.ids for prompt in prompts], batch_tokens, positions)
    return {layer: found.float() for layer, found in states.items()}


def basis_of(model: Any, tokenizer: Any) -> SemanticBasis:
    """The semantic basis of a loaded model. Rows of the LM head without a token are padding and left out.

    Args:
        model: a transformers language model with its head.
        tokenizer: its tokenizer.

    Example:
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> model = AutoModelForCausalLM.from_pretrained(folder).eval()
        >>> tokenizer = AutoTokenizer.from_pretrained(folder)
        >>> basis = basis_of(model, tokenizer)
        >>> basis.rank == model.config.hidden_size
        True
    """
    return semantic_basis([_head_rows(model, tokenizer)])


def label_basis(
    model: Any,
    tokenizer: Any,
    words: Mapping[str, str],
    template: str = "{text}",
    label_tokens: RowTokens = "auto",
    basis: SemanticBasis | None = None,
) -> Float[Tensor, "c d"]:
    """The basis row of each label, float32, on the CPU: the mean of the rows of its word's tokens.

    Args:
        model: a transformers language model with its head.
        tokenizer: its fast tokenizer.
        words: label -> the word that stands for it, in the order of the class numbers.
        template: the prompt that the word follows, as in `encode_texts`.
        label_tokens: which tokens of a word stand for it: `first`, `last`, their `mean`, or `auto`: the first where
            these differ, else the mean.
        basis: of the model, where it is at hand; None: computed here.

    Raises:
        InputError: for a word without tokens, and for labels whose tokens are the same.

    Example:
        >>> from transformers import AutoModelForCausalLM, AutoTokenizer
        >>> model = AutoModelForCausalLM.from_pretrained(folder).eval()
        >>> tokenizer = AutoTokenizer.from_pretrained(folder)
        >>> rows = label_basis(model, tokenizer, {"bad": "negative", "good": "positive"})
        >>> tuple(rows.shape) == (2, model.config.hidden_size)
        True
    """
    rows = _head_rows(model, tokenizer)
    basis = basis or semantic_basis([rows])
    tokens = verbalize(tokenizer, template, words, label_tokens).tokens
    return torch.stack([basis.rows(rows[of_label]).mean(dim=0) for of_label in tokens]).cpu()


def _head_rows(model: Any, tokenizer: Any) -> Float[Tensor, "v d"]:
    return head_of(model).weight[: 1 + max(tokenizer.get_vocab().values())]


@dataclass(frozen=True)
class Calibrator:
    """A trained calibrator with the basis rows it moves states to.

    Attributes:
        settings: how it was trained.
        basis: [c, d].
        calibration: its weights, and how the training went.
    """

    settings: CalibrationSettings
    basis: Float[Tensor, "c d"]
    calibration: Calibration

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Semantic logits of the labels; the largest is the prediction."""
        return calibrated_logits(states, self.basis, self.settings, self.calibration.weights)


def calibrate(
    states: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    basis: Float[Tensor, "c d"],
    settings: CalibrationSettings | None = None,
    seed: int = 0,
    validation: tuple[Float[Tensor, "m d"], Int[Tensor, " m"]] | None = None,
) -> Calibrator:
    """Train a calibrator: a small module that moves states towards their labels' basis rows.

    Args:
        states: of the training texts, of layer `head`.
        labels: class numbers, from 0.
        basis: a row per class, see `label_basis`.
        settings: None: the defaults. The loss over the whole vocabulary is not offered here; see `fit_pack`.
        seed: of the initial weights, the order of rows, dropout, and the rows that are held out.
        validation: states and labels that decide when training stops; None: a fifth of each class is held out.

    Raises:
        InputError: for a class with fewer than two rows where rows are held out, or a loss that is not finite.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> states = torch.eye(2)[labels] + torch.arange(40).unsqueeze(1) / 100
        >>> calibrator = calibrate(states, labels, basis=torch.eye(2))
        >>> int((calibrator.logits(states).argmax(dim=1) == labels).sum())
        40
    """
    settings = settings or CalibrationSettings()
    train = Labelled(states, labels)
    if validation is None:
        held = _held_out(labels, len(basis), seed)
        train, validation = Labelled(states[~held], labels[~held]), (states[held], labels[held])
    (found,) = fit_pack(train, Labelled(*validation), basis, [Lane(settings, seed)])
    if isinstance(found, InputError):
        raise found
    return Calibrator(settings, basis, found)


def _held_out(labels: Int[Tensor, " n"], n_classes: int, seed: int) -> Tensor:
    """Which rows are for validation, [n], boolean: a seeded fifth of each class, at least one."""
    held, generator = torch.zeros(len(labels), dtype=torch.bool), torch.Generator().manual_seed(seed)
    for number in range(n_classes):
        rows = (labels == number).nonzero().squeeze(1)
        if len(rows) < 2:
            raise InputError(
                f"class {number} has {len(rows)} training rows; at least two are needed, one of them for validation. "
                "Add rows, or give `validation`."
            )
        order = torch.randperm(len(rows), generator=generator)
        held[rows[order[: max(1, round(_VALIDATION_SHARE * len(rows)))]]] = True
    return held


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of states.

    Attributes:
        weight: [c, d].
        bias: [c].
    """

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Class scores; the largest is the prediction."""
        return probe_logits(states, {"weight": self.weight, "bias": self.bias})


def probe(states: Float[Tensor, "n d"], labels: Int[Tensor, " n"], inverse_penalty: float = 1.0) -> LinearProbe:
    """Fit a linear probe: multinomial logistic regression on standardized states.

    Args:
        states: of the training texts, of any layer.
        labels: class numbers, from 0; every class has a row.
        inverse_penalty: scikit-learn's C; smaller is stronger L2.

    Raises:
        InputError: for fewer than two classes, or a class without a row.

    Example:
        >>> states, labels = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> probe(states, labels).logits(torch.tensor([[-3.0], [3.0]])).argmax(dim=1)
        tensor([0, 1])
    """
    return LinearProbe(**fit_probe(states, labels, int(labels.max()) + 1, inverse_penalty))
