"""Muon (Jordan et al. 2024): momentum for matrices, whose every step is made nearly orthogonal.

As torch's, with steps of AdamW's size (Liu et al. 2025); but torch takes the products of its iteration in bfloat16
whatever a training's precision is, which a processor without instructions for it is slow at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

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
    """The optimizer, for matrices.

    Args:
        weights: what is trained; each must have a gradient at every step.
        lr, weight_decay: the rate, and the share of it by which weights shrink.
        bf16: whether the iteration's products are taken in bfloat16, else in float32.
    """

    def __init__(self, weights: Iterable[Parameter], lr: float, weight_decay: float, bf16: bool) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "bf16": bf16})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        for group in self.param_groups:
            same: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if not self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
                same.setdefault(weight.shape, []).append(weight)
            for shape, weights in same.items():
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
                torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
                changes = list(_orthogonal_each(torch._foreach_lerp(gradients, momenta, _MOMENTUM), group["bf16"]))
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, changes, alpha=-group["lr"] * _SIZE * math.sqrt(max(shape)))


def _orthogonal_each(matrices: Sequence[Tensor], bf16: bool) -> Sequence[Tensor]:
    """Of matrices of one shape. A GPU takes them at once: one alone does not keep it busy, and each launch costs."""
    if matrices[0].is_cuda:
        return orthogonal(torch.stack(list(matrices)), bf16).to(matrices[0].dtype).unbind()
    return [orthogonal(matrix, bf16) for matrix in matrices]


def orthogonal(matrix: Float[Tensor, "*any n m"], bf16: bool) -> Float[Tensor, "*any n m"]:
    """A matrix of the same singular vectors whose singular values are near 1, from 0.7 to 1.2 but for very small ones.

    Of several, one for each. bfloat16 where `bf16`, else float32: five rounds of a polynomial that drives singular
    values towards 1.
    """
    first, third, fifth = _COEFFICIENTS
    product = torch.addmm if matrix.ndim == 2 else torch.baddbmm
    tall = matrix.shape[-2] > matrix.shape[-1]
    found = matrix.to(torch.bfloat16 if bf16 else torch.float32)
    found = found.mT if tall else found
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST)
    for _ in range(_ROUNDS):
        square = found @ found.mT
        found = product(found, product(square, square, square, beta=third, alpha=fifth), found, beta=first)
    return found.mT if tall else found
