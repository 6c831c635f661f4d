"""The paired randomisation test of a difference in macro-F1, by random swaps: as many as its p needs.

Macro-F1 is no sum over items, so the distribution has no closed form. A swap of two predictions moves counts: how often
each class is predicted, and rightly. All swaps of a block are one matrix product.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

SWAPS = 199_999  # at most: p is 0.000005 at least, small enough for Holm over a thousand comparisons
ENOUGH = 400  # swaps as large as what was found end the test: the standard error of p is then 5 % of it
_BLOCK = 2048
_AT_ONCE = 1 << 24  # signs held by a block
_ROUNDING = 1e-12  # of a difference of scores


def random_swaps_as_large(
    first: Int[np.ndarray, "seeds n"],
    second: Int[np.ndarray, "seeds n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
    generator: np.random.Generator,
) -> float:
    """How often swapping two methods on items at random makes as large a difference of macro-F1, of either sign.

    Args:
        first: predicted class numbers, a row per seed.
        second: the other method's, on the same items.
        labels: true class numbers.
        n_classes: how many there are.
        generator: of the swaps; an item is swapped for all seeds together.

    Returns:
        p of the sequential test of Besag and Clifford (Biometrika 78, 1991): `ENOUGH` divided by the swaps drawn until
        so many were as large; where `SWAPS` do not suffice, those as large and one, divided by `SWAPS` and one.
    """
    differ = (first != second).any(axis=0)
    actual = np.bincount(labels, minlength=n_classes)
    own, other = (_counts(side, labels, n_classes) for side in (first, second))
    moves = _moves(first[:, differ], second[:, differ], labels[differ], n_classes)
    (observed,) = np.abs(_gap(own[None], other[None], actual)) - _ROUNDING
    block = max(1, min(_BLOCK, _AT_ONCE // max(1, len(moves))))
    as_large = 0
    for start in range(0, SWAPS, block):
        swapped = _coins(min(block, SWAPS - start), len(moves), generator)
        moved = (swapped @ moves).reshape(len(swapped), *own.shape)
        (hits,) = np.nonzero(np.abs(_gap(own + moved, other - moved, actual)) >= observed)
        if as_large + len(hits) >= ENOUGH:
            return float(ENOUGH / (start + hits[ENOUGH - as_large - 1] + 1))
        as_large += len(hits)
    return (1 + as_large) / (1 + SWAPS)


def _counts(
    predictions: Int[np.ndarray, "seeds n"], labels: Int[np.ndarray, " n"], n_classes: int
) -> Float[np.ndarray, "2 seeds classes"]:
    """How often each seed predicts each class, and how often rightly."""
    found = predictions[..., None] == np.arange(n_classes)
    return np.stack([found.sum(axis=1), (found & (predictions == labels)[..., None]).sum(axis=1)]).astype(float)


def _moves(
    first: Int[np.ndarray, "seeds n"],
    second: Int[np.ndarray, "seeds n"],
    labels: Int[np.ndarray, " n"],
    n_classes: int,
) -> Float[np.ndarray, "n counts"]:
    """By how much the swap of an item changes the first side's counts. Small integers, which float32 adds exactly."""
    classes = np.arange(n_classes)
    found = (second[..., None] == classes).astype(np.float32) - (first[..., None] == classes)
    right = found * (labels[:, None] == classes)
    return np.stack([found, right]).transpose(2, 0, 1, 3).reshape(len(labels), 2 * len(first) * n_classes)


def _coins(draws: int, items: int, generator: np.random.Generator) -> Float[np.ndarray, "draws n"]:
    bits = np.unpackbits(generator.integers(256, size=(draws, -(-items // 8)), dtype=np.uint8), axis=1)
    return bits[:, :items].astype(np.float32)


def _gap(
    own: Float[np.ndarray, "draws 2 seeds classes"],
    other: Float[np.ndarray, "draws 2 seeds classes"],
    actual: Int[np.ndarray, " classes"],
) -> Float[np.ndarray, " draws"]:
    """The difference of macro-F1, averaged over seeds; a class neither present nor predicted has 0."""

    def f1(counts: Float[np.ndarray, "draws 2 seeds classes"]) -> Float[np.ndarray, "draws seeds classes"]:
        return 2 * counts[..., 1, :, :] / np.maximum(counts[..., 0, :, :] + actual, 1)

    return (f1(own) - f1(other)).mean(axis=(-2, -1))
