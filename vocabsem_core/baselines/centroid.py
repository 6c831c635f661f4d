"""Nearest class mean of states (Hidden Calibration, arXiv 2406.16535)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def class_means(states: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int) -> Float[Tensor, "c d"]:
    """The mean state of each class; each has a row at least."""
    sums = torch.zeros(n_classes, states.shape[1], dtype=states.dtype).index_add(0, labels, states)
    return sums / torch.bincount(labels, minlength=n_classes).unsqueeze(1)


def centroid_scores(states: Float[Tensor, "n d"], centroids: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
    """Minus the Euclidean distance to each centroid."""
    return -torch.cdist(states, centroids, compute_mode="donot_use_mm_for_euclid_dist")
