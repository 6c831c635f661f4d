"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) for trainings side by side, each with a rate and decay of its own."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # as torch has them


class AdamW:
    """Steps of several trainings at once, as torch.optim.AdamW makes them one by one.

    Everything is done in place: a step is bound by how often it goes through memory, not by its arithmetic.
    """

    def __init__(
        self, weights: Float[Tensor, "lanes n"], rates: Float[Tensor, "lanes 1"], decays: Float[Tensor, "lanes 1"]
    ) -> None:
        """`weights` are changed by `step`; a row is a training's."""
        self._weights = weights
        self._rates, self._shrink = rates, 1 - rates * decays
        self._first, self._second = torch.zeros_like(weights), torch.zeros_like(weights)
        self._steps = 0

    def step(self, gradient: Float[Tensor, "lanes n"]) -> None:
        """One step; `gradient` is used up."""
        self._steps += 1
        self._first.lerp_(gradient, 1 - _BETAS[0])
        self._second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        first, second = (1 - beta**self._steps for beta in _BETAS)
        slow = first / self._rates  # rate · (m / first) / (√(v / second) + ε) = m / (√v · slow / √second + ε · slow)
        divisor = torch.sqrt(self._second, out=gradient).mul_(slow / math.sqrt(second)).add_(_EPSILON * slow)
        self._weights.mul_(self._shrink).addcdiv_(self._first, divisor, value=-1)

    def keep(self, places: list[int], weights: Float[Tensor, "kept n"]) -> None:
        """Go on with these rows alone, which `weights` now has."""
        self._weights = weights
        for name in ("_rates", "_shrink", "_first", "_second"):
            setattr(self, name, getattr(self, name)[places])
