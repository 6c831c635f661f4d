"""Similarities of residually calibrated states to basis rows, without forming the moved states.

With a = k ⊙ gelu(V z + b), z the standardised states, D the deviations and M = D [U c], the moved state is h + M [a 1].
Its product with a basis row t and its squared norm are then

    t·h + (Mᵀ t)·[a 1]        and        |h|² + [a 1]·(2 Mᵀ h + (Mᵀ M) [a 1]),

so that everything that differs between lanes has r numbers a row instead of d, and one matrix product with the rows
serves all lanes. This is what makes hundreds of trainings cheap; `calibration.residual` is the formula it stands for.
Where several layers are read side by side, z is of all of them, and h, which is moved, is the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.names import Similarity
from vocabsem_core.semantics.affinity import similarities

MOVES = "moves"  # [Uᵀ; c], [r + 1, d], while it is trained: both in one, and as the products want it


def for_training(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The module's weights with U and c in one."""
    rest = {name: value for name, value in weights.items() if not name.startswith("up.")}
    return {MOVES: torch.cat([weights["up.weight"].mT, weights["up.bias"].unsqueeze(-2)], dim=-2), **rest}


def as_stored(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `for_training`."""
    rest = {name: value for name, value in weights.items() if name != MOVES}
    return {"up.weight": weights[MOVES][..., :-1, :].mT, "up.bias": weights[MOVES][..., -1, :], **rest}


def residual_similarities(
    states: Float[Tensor, "n read"] | Float[Tensor, "lanes n read"],
    weights: Mapping[str, Tensor],
    read: Float[Tensor, "n read"] | Float[Tensor, "lanes n read"] | None,
    keep: Float[Tensor, "lanes r n"] | None,
    targets: Float[Tensor, "k d"] | Float[Tensor, "lanes k d"],
    similarity: Similarity,
) -> Float[Tensor, "lanes k n"]:
    """Semantic logits at temperature 1 of the moved states.

    Args:
        states: rows that all lanes share, or rows of each lane.
        weights: as `for_training` gives them.
        read: dropout's factors of the standardised states z; None: no dropout.
        keep: dropout's factors of the r hidden units; None: no dropout.
        targets: k basis rows, shared or of each lane.
        similarity: of moved states and targets.
    """
    width, rank = weights[MOVES].shape[-1], weights[MOVES].shape[-2] - 1
    moved, standard = states[..., :width], (states - weights["mean"]) / weights["deviation"]
    if read is not None:
        standard = standard * read
    moves = weights[MOVES] * weights["deviation"][:width]  # Mᵀ, [lanes, r + 1, d]
    before = _products(weights["down.weight"], standard.mT) + weights["down.bias"].unsqueeze(-1)
    hidden = functional.gelu(before)  # a, [lanes, r, n]
    if keep is not None:
        hidden = hidden * keep
    parts = (rank, 1)
    along, along_offset = _products(moves, targets.mT).split(parts, dim=-2)  # Mᵀ t
    dots = targets @ moved.mT + along_offset.mT + along.mT @ hidden
    if similarity == "dot":
        return dots
    across, across_offset = _products(moves, moved.mT).split(parts, dim=-2)  # Mᵀ h
    rows, last = _Gram.apply(moves).split(parts, dim=-2)
    inner = across + rows[..., rank:]
    squares = moved.square().sum(dim=-1).unsqueeze(-2) + 2 * across_offset + last[..., rank:]
    squares = squares + (hidden * (2 * inner + rows[..., :rank] @ hidden)).sum(dim=-2, keepdim=True)  # [lanes, 1, n]
    return similarities(dots, squares, targets.square().sum(dim=-1, keepdim=True), similarity)


def _products(
    rows: Float[Tensor, "lanes m d"], x: Float[Tensor, "d n"] | Float[Tensor, "lanes d n"]
) -> Float[Tensor, "lanes m n"]:
    """rows @ x; one product for all lanes where they share x."""
    if x.ndim == 3:
        return rows @ x
    return (rows.flatten(0, 1) @ x).unflatten(0, rows.shape[:2])


class _Gram(torch.autograd.Function):
    """rows @ rowsᵀ. Its gradient by one product, where autograd, which does not know that both are one, makes two."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        context.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (rows,) = context.saved_tensors
        return (gradient + gradient.mT) @ rows
