"""How well a score tells anomalies from what is known: AUROC and FPR95, and bootstrap draws of them.

A higher score says anomaly. FPR95 is the share of known items that a threshold calls anomalies which finds 95 % of the
anomalies (Hendrycks and Gimpel 2017, with anomalies as the positive class).
"""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from vocabsem_core.names import Detection
from vocabsem_core.statistics.metrics import RESAMPLES

_FOUND = 0.95  # of the anomalies


def detection(known: Float[np.ndarray, " n"], anomalies: Float[np.ndarray, " m"], metric: Detection) -> float:
    """A metric of anomaly scores.

    Args:
        known: scores of items that are none.
        anomalies: scores of items that are.
        metric: `auroc`: the chance that an anomaly scores higher than a known item, ties counted half; `fpr95`.

    Example:
        >>> import numpy as np
        >>> detection(np.array([0.1, 0.2, 0.9]), np.array([0.8, 1.0]), "auroc")
        0.8333333333333334
    """
    if metric == "auroc":
        ranks = rankdata(np.concatenate([known, anomalies]))[len(known) :]
        return float((ranks.sum() - len(anomalies) * (len(anomalies) + 1) / 2) / (len(known) * len(anomalies)))
    if metric == "fpr95":
        threshold = np.sort(anomalies)[::-1][math.ceil(_FOUND * len(anomalies)) - 1]
        return float((known >= threshold).mean())
    assert_never(metric)


def detection_draws(
    known: Float[np.ndarray, " n"], anomalies: Float[np.ndarray, " m"], metric: Detection, seed: int = 0
) -> Float[np.ndarray, " draws"]:
    """The metric of bootstrap draws of the items, known ones and anomalies apart.

    Equal seeds draw the same items, so that the draws of two scores of the same items are paired.
    """
    random = np.random.default_rng(seed)
    return np.array([detection(_redrawn(known, random), _redrawn(anomalies, random), metric) for _ in range(RESAMPLES)])


def _redrawn(scores: Float[np.ndarray, " m"], random: np.random.Generator) -> Float[np.ndarray, " m"]:
    return scores[random.integers(len(scores), size=len(scores))]
