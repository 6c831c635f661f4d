"""Nearest neighbours among training states: exact, in chunks, on the states' own device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vocabsem_core.names import Distance

_ROUNDING = 1e-13  # of float64, relative to the squared lengths
_DISTANCES = 1 << 22  # at a time: in float64 and as keys they take some 150 MB


def nearest(
    queries: Float[Tensor, "n d"], train: Float[Tensor, "m d"], k: int, distance: Distance
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k nearest training states of each query, in `smallest`'s order.

    Args:
        queries: n states.
        train: m states.
        k: neighbours; m at most.
        distance: `cosine` (1 - similarity) or `euclidean`.

    Returns:
        Distances, and row numbers in `train`.
    """
    if distance == "cosine":
        queries, train = functional.normalize(queries, dim=-1), functional.normalize(train, dim=-1)
    gaps_to = _euclidean_to(train) if distance == "euclidean" else lambda part: 1 - part @ train.T
    found = [smallest(gaps_to(part), k) for part in queries.split(_rows(len(train)))]
    return torch.cat([gaps for gaps, _ in found]), torch.cat([rows for _, rows in found])


def smallest(gaps: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k smallest of each row in order, and their columns, the first of equal ones first (k at most m).

    So fewer are always the beginning of more, on every device: one search answers for every k. What differs by less
    than float32 can tell counts as equal, and what is below zero, by rounding, as zero.
    """
    columns, found = torch.arange(gaps.shape[1], device=gaps.device), []
    for part in gaps.split(_rows(len(columns))):
        bits = part.float().clamp_min(0).abs().view(torch.int32)  # without a sign they sort as the numbers do
        found.append((bits.long() << 32 | columns).topk(min(k, len(columns)), dim=1, largest=False).values)
    nearest_columns = torch.cat(found) & 0xFFFFFFFF
    return gaps.gather(1, nearest_columns), nearest_columns


def _rows(columns: int) -> int:
    """Queries at a time, so that memory does not grow with them or with the training states."""
    return max(1, _DISTANCES // columns)


def _euclidean_to(train: Float[Tensor, "m d"]) -> Callable[[Tensor], Tensor]:
    """Distances [n, m] of queries [n, d], by |q|² + |t|² - 2qt in float64.

    In float32 that loses neighbours where one dimension is large, as in many models. What rounding leaves of the
    distance between equal states is made zero.
    """
    exact = train.double().T
    lengths = exact.square().sum(dim=0)

    def gaps(queries: Tensor) -> Tensor:
        rows = queries.double()
        size = rows.square().sum(dim=1, keepdim=True) + lengths
        squared = torch.addmm(size, rows, exact, alpha=-2)
        return squared.masked_fill_(squared <= _ROUNDING * size, 0).sqrt_().to(queries.dtype)

    return gaps


def shares(votes: Int[Tensor, "n k"], n_classes: int) -> Float[Tensor, "n c"]:
    """The share of each class among a row's votes; by argmax a tie goes to the lower class."""
    return functional.one_hot(votes, n_classes).float().mean(dim=1)
