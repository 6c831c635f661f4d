"""Semantic calibration: a small module moves frozen states towards their labels' basis rows (paper, section 3.3).

A module is a formula over named weights; `batched_training` trains them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vocabsem_core.names import Loss, Similarity
from vocabsem_core.semantics.affinity import semantic_logits
from vocabsem_core.semantics.centring import States

Weights = dict[str, Tensor]
LEARNED = "learned_targets"
MEASURED = ("mean", "deviation")  # weights of the residual module that are measured, not trained


@dataclass(frozen=True)
class CalibrationSettings:
    """How a calibrator is built and trained.

    Attributes:
        module: "residual" (ours) or "paper".
        rank: hidden width of the residual module.
        loss: cross-entropy over the task's labels, over the whole vocabulary, or 1 - cosine to the true row (sm-gt).
        similarity: of calibrated states to the basis, in training and prediction.
        temperature: the logits' divisor, or its start where it is learned.
        learn_temperature: whether training moves it.
        learn_targets: whether training moves the classes' targets as well, which start as their basis rows.
        dropout: on the residual module's hidden units.
        input_dropout: on what the residual module reads, the standardised states; not on the state it moves.
        learning_rate, weight_decay: of AdamW.
        batch_size: rows a step.
        epochs: at most.
        patience: epochs without a lower validation loss before training stops; None: all epochs, last weights.
    """

    module: Literal["residual", "paper"] = "residual"
    rank: int = 64
    loss: Loss = "labels"
    similarity: Similarity = "cosine"
    temperature: float = 0.1
    learn_temperature: bool = True
    learn_targets: bool = False
    dropout: float = 0.3
    input_dropout: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 128
    epochs: int = 100
    patience: int | None = 10


Rows = TypeVar("Rows", bound=States, covariant=True)


@dataclass(frozen=True)
class Labelled(Generic[Rows]):
    """States with their class numbers, [n]."""

    states: Rows
    labels: Int[Tensor, " n"]


@dataclass(frozen=True)
class Calibration:
    """A trained calibrator.

    Attributes:
        weights: of the module, with "log_temperature".
        validation_loss: cross-entropy over the task's labels, of the weights kept.
        epoch: the epoch whose weights were kept, from 1; 0 is the untrained module.
        epochs: how many were trained.
    """

    weights: Weights
    validation_loss: float
    epoch: int
    epochs: int


def residual(
    states: Float[Tensor, "*any n read"],
    weights: Mapping[str, Tensor],
    read: Float[Tensor, "*any n read"] | None = None,
    keep: Float[Tensor, "lanes r n"] | None = None,
) -> Float[Tensor, "*lanes n d"]:
    """h + D (U gelu(V z + b) + c), z the standardised states, D the deviation of h by dimension (ours).

    What is read may be the states of several layers side by side; h, which is moved, is the first of them. `read` and
    `keep` are dropout's factors of z and of the hidden units. Where weights have a leading dimension, a module each.
    """
    width = weights["up.bias"].shape[-1]
    z = (states - weights["mean"]) / weights["deviation"]
    if read is not None:
        z = z * read
    hidden = functional.gelu(z @ weights["down.weight"].mT + weights["down.bias"].unsqueeze(-2))
    if keep is not None:
        hidden = hidden * keep.mT
    moves = hidden @ weights["up.weight"].mT + weights["up.bias"].unsqueeze(-2)
    return states[..., :width] + weights["deviation"][:width] * moves


def paper(states: Float[Tensor, "*any n d"], weights: Mapping[str, Tensor]) -> Float[Tensor, "*lanes n d"]:
    """λ(h) = LN(MLP(h ⊙ CA(h))) (paper, equations 1 and 2); where weights have a leading dimension, a module each.

    The paper leaves open (our choices): CA is one shared bottleneck d -> d/16 -> d; average and maximum pooling of a
    single vector are the vector itself, so CA(h) = 2 Bn(h); the MLP is d -> 2d -> d; ReLU; no biases beside LN's. That
    gives the paper's 33/8 d² weights.
    """
    columns = states.mT  # weights on the left, so that their gradients lie in memory as they do
    squeezed = torch.relu(weights["attention.squeeze"] @ columns)
    attended = columns * (2 * (weights["attention.expand"] @ squeezed))
    moved = (weights["mlp.down"] @ torch.relu(weights["mlp.up"] @ attended)).mT
    normed = functional.layer_norm(moved, moved.shape[-1:])
    return normed * weights["norm.weight"].unsqueeze(-2) + weights["norm.bias"].unsqueeze(-2)


def untrained(
    settings: CalibrationSettings,
    mean: Float[Tensor, " read"],
    deviation: Float[Tensor, " read"],
    generator: torch.Generator,
    basis: Float[Tensor, "c d"],
) -> Weights:
    """The weights a training starts from, of the dtype of `mean`, on the CPU.

    Args:
        settings: decide the module.
        mean: of the training states.
        deviation: their standard deviation. Of the dimensions that are read, the first d are moved.
        generator: of the random weights.
        basis: a row per class, where learned targets start.

    The residual module's U is zero, so it starts as the identity. Every other matrix is uniform within ± 1/√(columns),
    as torch.nn.Linear's are.
    """
    read, width, dtype = len(mean), basis.shape[1], mean.dtype

    def drawn(rows: int, columns: int) -> Tensor:
        return (torch.rand(rows, columns, generator=generator, dtype=dtype) * 2 - 1) / math.sqrt(columns)

    log_temperature = torch.tensor(settings.temperature, dtype=dtype).log()
    if settings.module == "paper":
        squeezed = max(1, width // 16)
        return {
            "attention.squeeze": drawn(squeezed, width),
            "attention.expand": drawn(width, squeezed),
            "mlp.up": drawn(2 * width, width),
            "mlp.down": drawn(width, 2 * width),
            "norm.weight": torch.ones(width, dtype=dtype),
            "norm.bias": torch.zeros(width, dtype=dtype),
            "log_temperature": log_temperature,
        }
    return {
        "mean": mean,
        "deviation": deviation,
        "down.weight": drawn(settings.rank, read),
        "down.bias": drawn(settings.rank, read)[:, 0].clone(),
        "up.weight": torch.zeros(width, settings.rank, dtype=dtype),
        "up.bias": torch.zeros(width, dtype=dtype),
        **({LEARNED: basis.to("cpu", dtype, copy=True)} if settings.learn_targets else {}),
        "log_temperature": log_temperature,
    }


@torch.inference_mode()
def calibrated_logits(
    states: Float[Tensor, "n read"],
    basis: Float[Tensor, "c d"],
    settings: CalibrationSettings,
    weights: dict[str, Tensor],
) -> Float[Tensor, "n c"]:
    """Semantic logits of calibrated states over the task's labels.

    Args:
        states: n states, of one layer or of several side by side.
        basis: a row per class; learned targets, where the weights have them, are used in its place.
        settings: of the training.
        weights: of the trained module.
    """
    moved = residual(states, weights) if settings.module == "residual" else paper(states, weights)
    return semantic_logits(moved, weights.get(LEARNED, basis), settings.similarity, weights["log_temperature"].exp())
