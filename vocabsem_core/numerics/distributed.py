"""What processes that train together say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def sum_over_processes(tensors: Sequence[Tensor], world: int) -> None:
    """Replace each tensor by its sum over the `world` processes of the process group, in one message."""
    if world == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def from_all_processes(value: Any, world: int) -> list[Any]:
    """What each of the `world` processes has for this value, in order of their ranks; plain data."""
    if world == 1:
        return [value]
    found: list[Any] = [None] * world
    distributed.all_gather_object(found, value)
    return found
