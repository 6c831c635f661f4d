"""How well a score tells anomalies from what is known: AUROC and FPR95, and bootstrap draws of them.

A higher score says anomaly. FPR95 is the share of known items that a threshold calls anomalies which finds 95 % of the
anomalies (Hendrycks and Gimpel 2017, with anomalies as the positive class).
"""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np
from jaxtyping import Float

from vocabsem_core.names import Detection
from vocabsem_core.statistics.metrics import RESAMPLES

_FOUND = 0.95  # of the anomalies
_AT_ONCE = 100  # draws


def detection(known: Float[np.ndarray, " n"], anomalies: Float[np.ndarray, " m"], metric: Detection) -> float:
    """A metric of anomaly scores.

    Args:
        known: scores of items that are none.
        anomalies: scores of items that are.
        metric: `auroc`: the chance that an anomaly scores higher than a known item, ties counted half; `fpr95`.

    Example:
        >>> detection(np.array([0.1, 0.2, 0.9]), np.array([0.8, 1.0]), "auroc")
        0.8333333333333334
    """
    return float(_weighted(known, anomalies, np.ones((1, len(known))), np.ones((1, len(anomalies))), metric)[0])


def detection_draws(
    known: Float[np.ndarray, " n"], anomalies: Float[np.ndarray, " m"], metric: Detection, seed: int = 0
) -> Float[np.ndarray, " draws"]:
    """The metric of bootstrap draws of the items, known ones and anomalies apart.

    Equal seeds draw the same items, so that the draws of two scores of the same items are paired.
    """
    random, found = np.random.default_rng(seed), []
    for start in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - start)
        drawn = [
            random.multinomial(len(scores), np.full(len(scores), 1 / len(scores)), size=size).astype(float)
            for scores in (known, anomalies)
        ]
        found.append(_weighted(known, anomalies, drawn[0], drawn[1], metric))
    return np.concatenate(found)


def _weighted(
    known: Float[np.ndarray, " n"],
    anomalies: Float[np.ndarray, " m"],
    times: Float[np.ndarray, "draws n"],
    of_anomalies: Float[np.ndarray, "draws m"],
    metric: Detection,
) -> Float[np.ndarray, " draws"]:
    """The metric where each draw has an item so many times."""
    order, falling = np.argsort(known), np.argsort(-anomalies, kind="stable")
    anomalies, of_anomalies = anomalies[falling], of_anomalies[:, falling]
    # How many known items are below each anomaly, and how many are below or equal.
    counted = np.cumsum(np.pad(times[:, order], ((0, 0), (1, 0))), axis=1)
    below, up_to = (counted[:, np.searchsorted(known[order], anomalies, side)] for side in ("left", "right"))
    if metric == "auroc":
        return (of_anomalies * (below + up_to)).sum(axis=1) / 2 / (len(known) * len(anomalies))
    if metric == "fpr95":
        last = (np.cumsum(of_anomalies, axis=1) >= math.ceil(_FOUND * len(anomalies))).argmax(axis=1)
        return 1 - below[np.arange(len(below)), last] / len(known)
    assert_never(metric)
