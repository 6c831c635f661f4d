"""The output head of a language model: the map from its input states to the logits of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import scale_and_softcap


@dataclass(frozen=True)
class OutputHead:
    """logits = softcap(scale * (h Wᵀ + b)), h in the input space of the LM head.

    Attributes:
        weight: [v, d], any float dtype.
        bias: [v], or None.
        scale: factor on the logits (Cohere's `logit_scale`; 1 / `logits_scaling` of Granite).
        softcap: logits become softcap * tanh(logits / softcap) (Gemma), or None.
    """

    weight: Float[Tensor, "v d"]
    bias: Float[Tensor, " v"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def rows(self, chosen: slice | list[int]) -> OutputHead:
        """The head of some rows alone; of a slice the tensors are shared, not copied."""
        bias = None if self.bias is None else self.bias[chosen]
        return OutputHead(self.weight[chosen], bias, self.scale, self.softcap)

    def logits(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Classic logits, computed in the states' dtype."""
        logits = states @ self.weight.to(states.dtype).T
        if self.bias is not None:
            logits = logits + self.bias.to(states.dtype)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def head_of(model: Any) -> OutputHead:
    """The head of a loaded transformers model, its tensors shared, not copied. Raises InputError where it has none.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> head = head_of(AutoModelForCausalLM.from_pretrained(folder))
        >>> head.bias is None, head.softcap is None
        (True, True)
    """
    linear = model.get_output_embeddings()
    if linear is None or getattr(linear, "weight", None) is None:
        raise InputError(
            f"{type(model).__name__} has no LM head over the vocabulary (get_output_embeddings() is empty); "
            "expected a language model with its head: causal, masked or encoder-decoder."
        )
    scale, softcap = scale_and_softcap(model.config)
    bias = getattr(linear, "bias", None)
    return OutputHead(linear.weight.detach(), None if bias is None else bias.detach(), scale, softcap)
