"""Centring: states seen from the mean of states whose labels are not read (ours; docs/few-labels.md says what for)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from vocabsem_core.errors import InputError

_CHUNK = 512  # rows held in float64 at a time
_SMALLEST = 1e-6  # deviation of a dimension: one that is constant stays where it is


@runtime_checkable  # for the checks of types in tests
class States(Protocol):
    """Rows [n, d] that can be asked for by number: a tensor, or what reads from a file just the rows asked for."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that `__getitem__` returns."""
        ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Centred:
    """Rows seen from a centre, which is taken off as they are asked for.

    Attributes:
        rows: the rows as they are stored.
        centre: [d].
    """

    rows: States
    centre: Float[Tensor, " d"]

    @property
    def shape(self) -> Any:
        """[n, d]."""
        return self.rows.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the rows."""
        return self.rows.dtype

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        found = self.rows[rows]
        return found - self.centre.to(found.device)


def moments(states: States) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation of each dimension, in the states' dtype on the CPU.

    Rows are read in parts and summed in float64. A deviation is 1e-6 at least.
    """
    rows, width = states.shape
    parts = torch.arange(rows).split(_CHUNK)
    mean = sum((states[part].double().sum(dim=0).cpu() for part in parts), torch.zeros(width).double()) / rows
    squares = ((states[part].double().cpu() - mean).square().sum(dim=0) for part in parts)
    deviation = (sum(squares, torch.zeros(width).double()) / rows).sqrt().clamp_min(_SMALLEST)
    return mean.to(states.dtype), deviation.to(states.dtype)


def centred_rows(rows: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
    """Label rows seen from their mean: what all labels have in common tells none of them apart.

    Raises InputError where all are the same row.
    """
    if bool((rows == rows[0]).all()):
        raise InputError(f"{len(rows)} labels have one and the same row; expected label words that differ")
    return rows - rows.mean(dim=0)
