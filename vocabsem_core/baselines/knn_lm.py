"""kNN-LM (Khandelwal et al. 2020): the model's distribution mixed with one over the labels of near training states."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def squared_scale(train: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """The median squared distance of training states from their mean, doubled: that of two of them, about (ours).

    It makes one temperature mean the same for states of any model; the paper's rule has none.
    """
    return 2 * (train - train.mean(dim=0)).square().sum(dim=1).median()


def neighbour_shares(
    gaps: Float[Tensor, "n k"], votes: Int[Tensor, "n k"], n_classes: int, temperature: float
) -> Float[Tensor, "n c"]:
    """p(y) ∝ Σ exp(-gap² / temperature) over the neighbours that vote for y.

    Args:
        gaps: distances to the k neighbours, divided by the root of `squared_scale`.
        votes: the neighbours' labels.
        n_classes: c.
        temperature: above 0; higher is nearer to equal votes.
    """
    weights = torch.softmax(-gaps.square() / temperature, dim=1)
    shares = torch.zeros(len(gaps), n_classes, dtype=weights.dtype)
    return shares.scatter_add(1, votes, weights)


def mixed(model: Float[Tensor, "n c"], neighbours: Float[Tensor, "n c"], interpolation: float) -> Float[Tensor, "n c"]:
    """λ p_kNN + (1 - λ) p_LM, both over the task's labels."""
    return interpolation * neighbours + (1 - interpolation) * model
