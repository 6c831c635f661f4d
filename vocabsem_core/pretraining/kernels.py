"""What torch is slow at in a training step on a processor: causal attention, and loss over a vocabulary (ours)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROWS = 1024  # whose logits are there at once


def summed_loss(
    states: Float[Tensor, "n width"], head: Float[Tensor, "tokens width"], labels: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Cross entropy of `states @ head.T` against `labels`, summed, in nats; a scalar in float32.

    The logits never exist as a whole: some rows at a time, they become the loss and its gradients, and are dropped.
    Products are taken in the dtype of autocast where it is on, else in that of `states`; probabilities and
    sums are float32 (float64 where `states` are).
    """
    loss: Tensor = _SummedLoss.apply(states, head, labels)
    return loss


class _SummedLoss(torch.autograd.Function):
    """The gradients are found along with the loss: nothing but them has to be kept for the backward pass."""

    @staticmethod
    def forward(context: Any, states: Tensor, head: Tensor, labels: Tensor) -> Tensor:
        kind = states.device.type
        products = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        exact = torch.promote_types(states.dtype, torch.float32)
        weights = head.to(products)
        loss = torch.zeros((), dtype=exact, device=states.device)
        of_states, of_head = torch.empty_like(states), torch.zeros_like(head)
        for part, target, of_part in zip(states.split(_ROWS), labels.split(_ROWS), of_states.split(_ROWS), strict=True):
            left = part.to(products)
            logits = (left @ weights.T).to(exact)
            chances = torch.softmax(logits, -1)
            # the log of the sum of exponentials by way of the likeliest token, whose chance is never rounded to zero
            total = logits.amax(-1) - chances.amax(-1).log()
            loss += (total - logits.gather(1, target[:, None]).squeeze(1)).sum()
            chances.scatter_add_(1, target[:, None], chances.new_full((len(target), 1), -1.0))
            slopes = chances.to(products)
            of_part.copy_(slopes @ weights)
            of_head += slopes.T @ left
        context.save_for_backward(of_states, of_head)
        return loss

    @staticmethod
    @once_differentiable
    def backward(context: Any, scale: Tensor) -> tuple[Tensor, Tensor, None]:
        of_states, of_head = context.saved_tensors
        return of_states * scale, of_head * scale, None


def causal_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **unused: Any
) -> tuple[Float[Tensor, "batch tokens heads size"], None]:
    """Attention to a token and those before it, as transformers calls it.

    Args:
        module: not used.
        query, key, value: [batch, heads, tokens, size].
        mask: not used: all tokens are real.
        scaling: factor of the products.

    Plain products and a softmax: on a processor torch's fused kernel takes two to four times as long, forward and
    backward, for contexts of 512 and 128 tokens. The scores of all pairs are kept for the backward pass.
    """
    batch, heads, tokens, _ = query.shape
    q, k, v = (part.flatten(0, 1) for part in (query * scaling, key, value))
    scores = torch.baddbmm(_future(tokens, q.dtype), q, k.transpose(1, 2))
    found = torch.softmax(scores, -1, dtype=q.dtype) @ v
    return found.view(batch, heads, tokens, -1).transpose(1, 2), None


@lru_cache(maxsize=4)
def _future(tokens: int, dtype: torch.dtype) -> Tensor:
    """[1, tokens, tokens]: minus infinity where a token would see a later one."""
    return torch.full((tokens, tokens), -math.inf, dtype=dtype).triu(1)[None]
