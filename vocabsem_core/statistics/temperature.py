"""Temperature scaling: how sure class scores should be, found on rows that nothing was learned from.

One number divides all scores, so that no prediction changes (Guo et al. 2017, arXiv 1706.04599).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_WIDEST = 7.0  # of log T: scores from cosines to distances of hundreds


def fit_temperature(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """The temperature under which these labels are most likely.

    Args:
        scores: class scores, such as logits; their softmax gives probabilities.
        labels: true class numbers.

    A normal prior of unit deviation on log T (ours) keeps a few rows that are all right from making it zero.

    Example:
        >>> scores = np.array([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
        >>> fit_temperature(scores, np.array([0, 0, 1, 1])) > 2
        True
    """
    rows, exact = np.arange(len(labels)), np.asarray(scores, dtype=np.float64)

    def loss(log_temperature: float) -> float:
        chances = log_softmax(exact / np.exp(log_temperature), axis=1)
        return float(log_temperature**2 / 2 - chances[rows, labels].sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded").x))


def probabilities(scores: Float[np.ndarray, "n c"], temperature: float = 1.0) -> Float[np.ndarray, "n c"]:
    """Class probabilities of scores at a temperature."""
    return np.exp(log_softmax(np.asarray(scores, dtype=np.float64) / temperature, axis=1))
