"""Vocabulary affinity inference: logits from the similarity of states to the semantic basis (paper, section 3.2)."""

from __future__ import annotations

from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.names import Similarity

_SMALLEST = 1e-12  # of a norm, and of a squared distance: keeps their derivatives finite


def semantic_logits(
    states: Float[Tensor, "*lanes n d"],
    basis: Float[Tensor, "k d"],
    similarity: Similarity = "cosine",
    temperature: float | Tensor = 1.0,
) -> Float[Tensor, "*lanes n k"]:
    """Similarity of each state to each basis row, divided by the temperature.

    Args:
        states: n states, with any axes before.
        basis: a row per label.
        similarity: `cosine` is the paper's (Algorithm 1); `euclidean` (negative distance) and `dot` (a whitened logit)
            are ours.
        temperature: the paper states none, which is 1.0; others are ours.

    Returns:
        A logit per label. Of `euclidean` in float64: what tells the rows apart is a small part of |h|, which all
        distances have in common.

    Example:
        >>> states = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
        >>> semantic_logits(states, basis=torch.eye(2))
        tensor([[1.0000, 0.0000],
                [0.6000, 0.8000]])
    """
    if similarity == "cosine":
        logits = functional.normalize(states, dim=-1) @ functional.normalize(basis, dim=-1).T
    elif similarity == "dot":
        logits = states @ basis.T
    elif similarity == "euclidean":
        logits = -torch.cdist(states.double(), basis.double())
    else:
        assert_never(similarity)
    return logits / temperature


def similarities(
    dots: Float[Tensor, "*products"],
    squares: Float[Tensor, "*states"],
    basis_squares: Float[Tensor, "*basis"],
    kind: Similarity,
) -> Float[Tensor, "*products"]:
    """Semantic logits at temperature 1 from the products of states with basis rows and from squared norms of both.

    In training this is cheaper than `semantic_logits`: no normalised state is made, nor the gradient to one. Axes are
    the caller's; they must broadcast.

    Args:
        dots: products of states and basis rows.
        squares: squared norms of the states.
        basis_squares: squared norms of the basis rows.
        kind: the similarity.
    """
    if kind == "dot":
        return dots
    if kind == "euclidean":
        return -(squares - 2 * dots + basis_squares).clamp_min(_SMALLEST).sqrt()
    if kind == "cosine":
        return dots / squares.clamp_min(_SMALLEST).sqrt() / basis_squares.sqrt().clamp_min(_SMALLEST)
    assert_never(kind)
