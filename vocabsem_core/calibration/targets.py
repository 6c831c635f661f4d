"""What calibration moves states to, when it is not the semantic basis: to see whether the basis matters (ours)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vocabsem_core.baselines.centroid import class_means
from vocabsem_core.errors import InputError


def centred_means(states: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int) -> Float[Tensor, "c d"]:
    """The mean state of each class, seen from the mean of these means: without it all would point the same way."""
    means = class_means(states, labels, n_classes)
    return means - means.mean(dim=0)


def random_orthogonal(like: Float[Tensor, "c d"], seed: int = 0) -> Float[Tensor, "c d"]:
    """Orthogonal rows in random directions, as long as those of `like` are on average.

    Raises InputError for more rows than dimensions.
    """
    rows, width = like.shape
    if rows > width:
        raise InputError(f"{rows} labels cannot have orthogonal targets in {width} dimensions")
    drawn = torch.randn(width, rows, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)
    return torch.linalg.qr(drawn).Q.T * like.norm(dim=1).mean()


def as_wide_as(rows: Float[Tensor, "c e"], basis: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
    """The rows themselves. Raises InputError where a model's embedding is of another width than its head's input."""
    if rows.shape[1] != basis.shape[1]:
        raise InputError(
            f"the input embedding has {rows.shape[1]} dimensions, the head's input {basis.shape[1]}; take other targets"
        )
    return rows
