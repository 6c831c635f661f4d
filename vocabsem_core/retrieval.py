"""Nearest neighbours among training states: exact, in chunks, on the states' own device."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Distance = Literal["cosine", "euclidean"]
_ROUNDING = 1e-13  # of float64, relative to the squared lengths
_CHUNK = 1024  # queries at a time: bounds memory to chunk x train distances


def nearest(
    queries: Float[Tensor, "n d"], train: Float[Tensor, "m d"], k: int, distance: Distance
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Distances and row numbers of the k nearest training states of each query, in `smallest`'s order."""
    if distance == "cosine":
        queries, train = functional.normalize(queries, dim=-1), functional.normalize(train, dim=-1)
    found = []
    for chunk in queries.split(_CHUNK):
        gaps = 1 - chunk @ train.T if distance == "cosine" else _euclidean(chunk, train)
        found.append(smallest(gaps, k))
    return torch.cat([gaps for gaps, _ in found]), torch.cat([rows for _, rows in found])


def smallest(gaps: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k smallest of each row in order, and their columns, the first of equal ones first (k at most m).

    So fewer are always the beginning of more, on every device: one search answers for every k. What differs by less
    than float32 can tell counts as equal, and what is below zero, by rounding, as zero.
    """
    columns, found = torch.arange(gaps.shape[1], device=gaps.device), []
    for part in gaps.split(_CHUNK):
        bits = (part.float().clamp_min(0) + 0.0).view(torch.int32)  # of numbers above zero: they sort as the numbers do
        found.append((bits.long() << 32 | columns).topk(min(k, len(columns)), dim=1, largest=False).values)
    nearest_columns = torch.cat(found) & 0xFFFFFFFF
    return gaps.gather(1, nearest_columns), nearest_columns


def _euclidean(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """By |a|² + |b|² - 2ab in float64: in float32 it loses neighbours where one dimension is large, as in many models.

    What is left by rounding of the distance between equal states is made zero.
    """
    a64, b64 = a.double(), b.double()
    size = a64.square().sum(dim=1, keepdim=True) + b64.square().sum(dim=1)
    squared = size - 2 * a64 @ b64.T
    return squared.where(squared > _ROUNDING * size, 0).sqrt().to(a.dtype)


def shares(votes: Int[Tensor, "n k"], n_classes: int) -> Float[Tensor, "n c"]:
    """The share of each class among a row's votes; by argmax a tie goes to the lower class."""
    return functional.one_hot(votes, n_classes).float().mean(dim=1)
