"""Two methods on the same test items, compared pair by pair.

Numbers are fractions. Predictions are [seeds, items]; what is compared is the score averaged over seeds, for that is
what a table shows. Two methods may have another number of seeds: each then stands as often as makes the numbers equal,
which changes no average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
from jaxtyping import Int
from scipy.signal import fftconvolve
from scipy.stats import binom, binomtest

from vocabsem_core.statistics.metrics import INTERVAL, Metric, draws_of_items, metric_of
from vocabsem_core.statistics.random_swaps import random_swaps_as_large


@dataclass(frozen=True)
class Lead:
    """By how much one score, averaged over seeds, is above another.

    Attributes:
        mean: the difference.
        low, high: its 95 % paired percentile bootstrap over items.
        p: two-sided, of the paired randomisation test: how often a difference as large, of either sign, comes about
            where the two methods are swapped on items at random, on each item for all seeds together.
    """

    mean: float
    low: float
    high: float
    p: float


def lead(
    first: Int[np.ndarray, "seeds n"],
    second: Int[np.ndarray, "others n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
    metric: Metric,
    seed: int = 0,
) -> Lead:
    """The lead of one method over another.

    Args:
        first: predicted class numbers, a row per seed.
        second: the other method's, on the same items; it may have another number of seeds.
        labels: true class numbers.
        n_classes: how many there are.
        metric: `accuracy` or `macro_f1`.
        seed: of the resampling and of random swaps.

    p of accuracy is exact, and for one seed that of the exact McNemar test; p of macro-F1 is of at most 199,999 random
    swaps.
    """
    first, second = in_pairs(first, second)
    generator, seeds = np.random.default_rng(seed), len(first)
    both = np.concatenate([first, second])
    gaps = [
        metric_of(both, labels, n_classes, metric, weights).reshape(len(weights), 2, seeds).mean(axis=2)
        for weights in (np.ones((1, len(labels))), *draws_of_items(len(labels), generator))
    ]
    plain, drawn = gaps[0][0], np.concatenate(gaps[1:])
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], INTERVAL)
    gap = float(plain[0] - plain[1])
    if metric == "accuracy":
        p = swaps_as_large((first == labels).sum(axis=0) - (second == labels).sum(axis=0))
    else:
        p = random_swaps_as_large(first, second, labels, n_classes, generator)
    return Lead(gap, float(low), float(high), p)


def in_pairs(
    first: Int[np.ndarray, "seeds n"], second: Int[np.ndarray, "others n"]
) -> tuple[Int[np.ndarray, "pairs n"], Int[np.ndarray, "pairs n"]]:
    """Both repeated to one number of rows: a method without a seed stands against each seed of the other."""
    pairs = math.lcm(len(first), len(second))
    return np.tile(first, (pairs // len(first), 1)), np.tile(second, (pairs // len(second), 1))


def swaps_as_large(differences: Int[np.ndarray, " n"]) -> float:
    """The share of all 2^n choices of signs under which the sum of the differences is as far from zero as it is.

    The sum's distribution is the convolution of one binomial a size of difference. Several sizes are convolved by FFT:
    a p below about 1e-13 is then rounding, and given as 1e-13.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    steps = []
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)  # of sums from -size * count on
        steps.append(step)
    distribution = reduce(fftconvolve, steps)
    sums = np.arange(len(distribution)) - len(distribution) // 2
    p = float(distribution[np.abs(sums) >= abs(int(differences.sum()))].sum())
    return min(1.0, p if len(sizes) == 1 else max(p, 1e-13))


@dataclass(frozen=True)
class McNemar:
    """The exact McNemar test of two sets of predictions.

    Attributes:
        won: items that the first alone has right.
        lost: items that the second alone has right.
        p: two-sided, exact: `won` of `won + lost` under a fair coin; 1 where they differ nowhere.
    """

    won: int
    lost: int
    p: float


def mcnemar(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> McNemar:
    """The exact McNemar test (McNemar 1947; exact form as in Agresti, Categorical Data Analysis, 3rd ed., 11.1)."""
    won = int(((first == labels) & (second != labels)).sum())
    lost = int(((first != labels) & (second == labels)).sum())
    return McNemar(won, lost, float(binomtest(won, won + lost).pvalue) if won + lost else 1.0)
