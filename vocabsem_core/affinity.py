"""Vocabulary affinity inference: logits from the similarity of states to the semantic basis (paper, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Similarity = Literal["cosine", "euclidean", "dot"]


def semantic_logits(
    states: Float[Tensor, "*lanes n d"],
    basis: Float[Tensor, "k d"],
    similarity: Similarity = "cosine",
    temperature: float | Tensor = 1.0,
) -> Float[Tensor, "*lanes n k"]:
    """Similarity of each state to each basis row, divided by the temperature.

    `cosine` is the paper's (Algorithm 1); `euclidean` (negative distance) and `dot` (a whitened logit) are ours, as
    is a temperature other than 1.0: the paper states none.
    """
    if similarity == "cosine":
        logits = functional.normalize(states, dim=-1) @ functional.normalize(basis, dim=-1).T
    elif similarity == "dot":
        logits = states @ basis.T
    else:
        logits = -torch.cdist(states, basis)
    return logits / temperature
