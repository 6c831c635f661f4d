"""Muon (Jordan et al. 2024): momentum for matrices, whose every step is made nearly orthogonal.

As torch's, with steps of AdamW's size (Liu et al. 2025); but torch takes the products of its iteration in bfloat16
whatever a training's precision is, which a processor without instructions for it is slow at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

_MOMENTUM = 0.95
_SIZE = 0.2  # root mean square of AdamW's steps, as measured by Liu et al.
_ROUNDS, _COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # Jordan's
_LEAST = 1e-7  # norm that is divided by


class Muon(Optimizer):
    """The optimiser, for matrices.

    Args:
        weights: what is trained; each must have a gradient at every step.
        lr, weight_decay: the rate, and the share of it by which weights shrink.
        half: whether the iteration's products are taken in bfloat16, else in float32.
    """

    def __init__(self, weights: Iterable[Parameter], lr: float, weight_decay: float, half: bool) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "half": half})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if not self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                momentum = self.state[weight]["momentum_buffer"]
                momentum.lerp_(weight.grad, 1 - _MOMENTUM)
                change = orthogonal(weight.grad.lerp(momentum, _MOMENTUM), group["half"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(change, alpha=-group["lr"] * _SIZE * math.sqrt(max(weight.shape)))


def orthogonal(matrix: Float[Tensor, "n m"], half: bool) -> Float[Tensor, "n m"]:
    """A matrix of the same singular vectors whose singular values are near 1, from 0.7 to 1.2 but for very small ones.

    bfloat16 where `half`, else float32: five rounds of a polynomial that drives singular values towards 1.
    """
    first, third, fifth = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.to(torch.bfloat16 if half else torch.float32)
    found = found.T if tall else found
    found = found / found.norm().clamp(min=_LEAST)
    for _ in range(_ROUNDS):
        square = found @ found.T
        found = torch.addmm(found, torch.addmm(square, square, square, beta=third, alpha=fifth), found, beta=first)
    return found.T if tall else found
