"""Scores of predictions, and how sure they are.

Numbers are fractions. Predictions are [seeds, items]: the same test items under each seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Metric = Literal["accuracy", "macro_f1"]
RESAMPLES = 2000
_LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """A score averaged over seeds.

    Attributes:
        mean: over seeds.
        low, high: 95 % percentile bootstrap over test items of the score averaged over seeds.
        by_seed: the score of each seed.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def sd_seeds(self) -> float | None:
        """Standard deviation over seeds (n - 1), None for one seed: that is not known to be zero."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else None


def score(
    predictions: Int[np.ndarray, "seeds n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
    metric: Metric,
    seed: int = 0,
) -> Score:
    """Score predictions with their interval; the resampling is seeded, so the same input gives the same numbers."""
    by_seed = metric_of(predictions, labels, n_classes, metric, np.ones((1, len(labels))))[0]
    weights = np.random.default_rng(seed).multinomial(
        len(labels), np.full(len(labels), 1 / len(labels)), size=RESAMPLES
    )
    resampled = metric_of(predictions, labels, n_classes, metric, weights.astype(float)).mean(axis=1)
    low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Score(float(by_seed.mean()), float(low), float(high), tuple(map(float, by_seed)))


@dataclass(frozen=True)
class Lead:
    """By how much one score is above another.

    Attributes:
        mean: the difference.
        low, high: its 95 % paired percentile bootstrap over items.
        p: how often a difference as large, of either sign, comes about where the two are swapped on items at random.
    """

    mean: float
    low: float
    high: float
    p: float


def lead(
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
    metric: Metric,
    seed: int = 0,
) -> Lead:
    """The lead of one set of predictions over another on the same items; p is of a paired randomisation test."""
    items, generator = len(labels), np.random.default_rng(seed)
    ones = np.ones((1, items))
    plain = metric_of(np.stack([first, second]), labels, n_classes, metric, ones)[0]
    weights = generator.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(float)
    drawn = metric_of(np.stack([first, second]), labels, n_classes, metric, weights)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    swapped = generator.random((RESAMPLES, items)) < 0.5
    mixed = metric_of(np.where(swapped, second, first), labels, n_classes, metric, ones)[0]
    others = metric_of(np.where(swapped, first, second), labels, n_classes, metric, ones)[0]
    gap = float(plain[0] - plain[1])
    as_large = int((np.abs(mixed - others) >= abs(gap) - 1e-12).sum())
    return Lead(gap, float(low), float(high), (1 + as_large) / (1 + RESAMPLES))


def metric_of(
    predictions: Int[np.ndarray, "seeds n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
    metric: Metric,
    weights: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, "draws seeds"]:
    """The metric of each seed's predictions under each draw of item weights (ones: the plain score).

    macro_f1 is the mean over classes of 2 tp / (2 tp + fp + fn), 0 for a class neither present nor predicted, as
    scikit-learn has it with all classes named.
    """
    if metric == "accuracy":
        return weights @ (predictions == labels).T.astype(float) / weights.sum(axis=1, keepdims=True)
    scores = np.zeros((len(weights), len(predictions)))
    for c in range(n_classes):
        true, found = labels == c, predictions == c
        hits = weights @ (true & found).T.astype(float)
        total = weights @ found.T.astype(float) + (weights @ true.astype(float))[:, None]
        scores += np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return scores / n_classes


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence, weighted by their size."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    gaps = np.abs(np.bincount(places, confidence, bins) - np.bincount(places, right.astype(float), bins))
    return float(gaps.sum() / count.sum())
