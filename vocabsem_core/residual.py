"""Similarities of residually calibrated states to basis rows, without forming the moved states.

With x = h - mean, D the deviations, a = k ⊙ gelu(V x / D + b) and U' = D U, the moved state is o + x + U' a, where
o = mean + D c. Its product with a basis row t and its squared norm are then

    t·o + t·x + (U'ᵀ t)·a        and        |o|² + 2 o·x + |x|² + 2 a·(U'ᵀ x + U'ᵀ o) + aᵀ (U'ᵀ U') a,

so that everything that differs between lanes has r numbers a row instead of d, and one matrix product with the rows
serves all lanes. This is what makes hundreds of trainings cheap; `calibration.residual` is the formula it stands for.
Where several layers are read side by side, V x is of all of them, and every other x is the first, which is moved.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.affinity import Similarity, similarities


def residual_similarities(
    states: Float[Tensor, "n read"] | Float[Tensor, "lanes n read"],
    weights: Mapping[str, Tensor],
    keep: Float[Tensor, "lanes r n"] | None,
    targets: Float[Tensor, "k d"] | Float[Tensor, "lanes k d"],
    similarity: Similarity,
) -> Float[Tensor, "lanes k n"]:
    """Semantic logits at temperature 1, of rows that all lanes share or of each lane's own; targets alike."""
    width, down = weights["up.bias"].shape[-1], weights["down.weight"] / weights["deviation"]
    mean, deviation = weights["mean"][:width], weights["deviation"][:width]
    up = deviation[:, None] * weights["up.weight"]  # U', [lanes, d, r]
    offset = mean + deviation * weights["up.bias"]  # o, [lanes, d]
    read = (states - weights["mean"]).mT  # [read, n] or [lanes, read, n]
    x = read[..., :width, :]
    if width == read.shape[-2]:  # then one product serves both
        before, across = _products(torch.cat([down, up.mT], dim=-2), x).chunk(2, dim=-2)
    else:
        before, across = _products(down, read), _products(up.mT, x)
    hidden = functional.gelu(before + weights["down.bias"].unsqueeze(-1))  # a, [lanes, r, n]
    if keep is not None:
        hidden = hidden * keep
    dots = targets @ x + targets @ offset.unsqueeze(-1) + (targets @ up) @ hidden
    if similarity == "dot":
        return dots
    lengths = x.square().sum(dim=-2) + 2 * _products(offset.unsqueeze(-2), x).squeeze(-2)
    lengths = lengths + offset.square().sum(dim=-1, keepdim=True)
    inner = (up.mT @ offset.unsqueeze(-1)) + across  # U'ᵀ (o + x)
    lengths = lengths + (hidden * (2 * inner + (up.mT @ up) @ hidden)).sum(dim=-2)  # |moved|², [lanes, n]
    return similarities(dots, lengths.unsqueeze(-2), targets.square().sum(dim=-1, keepdim=True), similarity)


def _products(
    rows: Float[Tensor, "lanes m d"], x: Float[Tensor, "d n"] | Float[Tensor, "lanes d n"]
) -> Float[Tensor, "lanes m n"]:
    """rows @ x; one product for all lanes where they share x."""
    if x.ndim == 3:
        return rows @ x
    return (rows.flatten(0, 1) @ x).unflatten(0, rows.shape[:2])
