"""Scores by which anomalies are told from known classes. Higher says anomaly."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vocabsem_core.baselines.knn import nearest

_RIDGE = 1e-6  # of the covariance, as a share of its mean variance (ours): it may be singular


def max_softmax(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Minus the highest probability of a class (Hendrycks and Gimpel 2017)."""
    return -logits.softmax(dim=1).max(dim=1).values


def energy(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Minus the log of the summed exponentials, at temperature 1 (Liu et al. 2020)."""
    return -logits.logsumexp(dim=1)


def highest(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Minus the highest logit; of semantic logits, how far a state is from every known basis (ours)."""
    return -logits.max(dim=1).values


def mahalanobis(
    states: Float[Tensor, "n d"], train: Float[Tensor, "m d"], labels: Int[Tensor, " m"]
) -> Float[Tensor, " n"]:
    """Squared Mahalanobis distance to the nearest class mean, under one covariance of all classes (Lee et al. 2018).

    Args:
        states: to score.
        train: of known classes.
        labels: their class numbers, from 0; every class has a row.
    """
    wide = train.double()
    means = torch.stack([wide[labels == number].mean(dim=0) for number in range(int(labels.max()) + 1)])
    spread = wide - means[labels]
    covariance = spread.T @ spread / len(wide)
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    lower = torch.linalg.cholesky(covariance + ridge)
    gaps = states.double()[:, None] - means
    white = torch.linalg.solve_triangular(lower, gaps.flatten(0, 1).T, upper=False)
    return white.square().sum(dim=0).view(len(states), len(means)).min(dim=1).values.float()


def neighbour_distance(states: Float[Tensor, "n d"], train: Float[Tensor, "m d"], k: int = 10) -> Float[Tensor, " n"]:
    """Cosine distance to the k-th nearest training state (Sun et al. 2022); to the farthest where there are fewer."""
    return nearest(states, train, min(k, len(train)), "cosine")[0][:, -1]
