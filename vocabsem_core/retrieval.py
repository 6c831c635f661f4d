"""Nearest neighbours among training states: exact, in chunks, on the states' own device."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Distance = Literal["cosine", "euclidean"]
_CHUNK = 1024  # queries at a time: bounds memory to chunk x train distances


def nearest(
    queries: Float[Tensor, "n d"], train: Float[Tensor, "m d"], k: int, distance: Distance
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Distances and row numbers of the k nearest training states of each query, nearest first (k at most m)."""
    k = min(k, len(train))
    if distance == "cosine":
        queries, train = functional.normalize(queries, dim=-1), functional.normalize(train, dim=-1)
    found = []
    for chunk in queries.split(_CHUNK):
        gaps = 1 - chunk @ train.T if distance == "cosine" else _euclidean(chunk, train)
        found.append(gaps.topk(k, dim=1, largest=False))
    return torch.cat([gaps for gaps, _ in found]), torch.cat([rows for _, rows in found])


def _euclidean(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Without the matrix-product shortcut, which loses neighbours where one dimension is large, as in many models."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def knn_votes(
    queries: Float[Tensor, "n d"],
    train: Float[Tensor, "m d"],
    labels: Int[Tensor, " m"],
    n_classes: int,
    k: int,
    distance: Distance,
) -> Float[Tensor, "n c"]:
    """The share of the k nearest training states in each class; a tie goes to the lower class by argmax."""
    _, rows = nearest(queries, train, k, distance)
    return shares(labels[rows], n_classes)


def shares(votes: Int[Tensor, "n k"], n_classes: int) -> Float[Tensor, "n c"]:
    """The share of each class among a row's votes."""
    return functional.one_hot(votes, n_classes).float().mean(dim=1)
