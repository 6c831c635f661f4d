"""Scores of predictions, and how sure they are.

Numbers are fractions. Predictions are [seeds, items]: the same test items under each seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from vocabsem_core.names import Metric

RESAMPLES = 2000
INTERVAL = (0.025, 0.975)  # its ends, as shares of the draws: 95 %
_AT_ONCE = 1 << 23  # numbers of a block of draws


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
    """Score predictions, with a 95 % bootstrap interval over items.

    Args:
        predictions: class numbers, a row per seed.
        labels: true class numbers.
        n_classes: how many there are.
        metric: `accuracy` or `macro_f1`.
        seed: of the resampling; the same input gives the same interval.
    """
    by_seed = metric_of(predictions, labels, n_classes, metric, np.ones((1, len(labels))))[0]
    draws = draws_of_items(len(labels), np.random.default_rng(seed))
    resampled = [metric_of(predictions, labels, n_classes, metric, weights).mean(axis=1) for weights in draws]
    low, high = np.quantile(np.concatenate(resampled), INTERVAL)
    return Score(float(by_seed.mean()), float(low), float(high), tuple(map(float, by_seed)))


def draws_of_items(items: int, generator: np.random.Generator) -> Iterator[Float[np.ndarray, "draws n"]]:
    """How often each item is drawn, in `RESAMPLES` draws of as many with replacement; some draws at a time."""
    block = max(1, _AT_ONCE // items)
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        yield generator.multinomial(items, np.full(items, 1 / items), size=size).astype(float)


def metric_of(
    predictions: Int[np.ndarray, "seeds n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
    metric: Metric,
    weights: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, "draws seeds"]:
    """The metric of each seed's predictions under each draw of items.

    Args:
        predictions: class numbers, a row per seed.
        labels: true class numbers.
        n_classes: how many there are.
        metric: `accuracy` or `macro_f1`.
        weights: how often each draw has each item; a row of ones gives the plain score.

    macro_f1 is the mean over classes of 2 tp / (2 tp + fp + fn), 0 for a class neither present nor predicted, as
    scikit-learn has it with all classes named. A class that is there, but not in a draw, is left out of that draw's
    mean: as 0 it would put the draws of many small classes below the score itself.
    """
    if metric == "accuracy":
        return weights @ (predictions == labels).T.astype(float) / weights.sum(axis=1, keepdims=True)
    scores, drawn, there = np.zeros((len(weights), len(predictions))), np.zeros((len(weights), len(predictions))), 0
    for c in range(n_classes):
        true, found = labels == c, predictions == c
        hits = weights @ (true & found).T.astype(float)
        total = weights @ found.T.astype(float) + (weights @ true.astype(float))[:, None]
        scores += np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
        drawn += total > 0
        there += true.any() | found.any(axis=1)
    return scores * (there / drawn) / n_classes


def expected_calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence, weighted by their size."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    places = np.clip((confidence * bins).astype(int), 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    gaps = np.abs(np.bincount(places, confidence, bins) - np.bincount(places, right.astype(float), bins))
    return float(gaps.sum() / count.sum())


def confusion(
    predictions: Int[np.ndarray, "seeds n"], labels: Int[np.ndarray, " n"], n_classes: int
) -> Int[np.ndarray, "classes classes"]:
    """How often each true class (row) was predicted as each class (column), over all seeds."""
    places = labels[None].astype(np.int64) * n_classes + predictions
    return np.bincount(places.ravel(), minlength=n_classes**2).reshape(n_classes, n_classes)
