"""Temperature scaling against a search over a grid, written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabsem_core.statistics.temperature import fit_temperature, probabilities


def by_hand(scores: np.ndarray, labels: np.ndarray) -> float:
    """The best of a fine grid: negative log-likelihood, and half the square of log T."""

    def loss(log_t: float) -> float:
        total = log_t**2 / 2
        for row, label in zip(scores / math.exp(log_t), labels, strict=True):
            total += math.log(sum(math.exp(one - row.max()) for one in row)) + row.max() - row[label]
        return total

    return math.exp(min(np.arange(-6, 6, 0.01), key=loss))


@pytest.mark.parametrize("scale", [0.02, 1.0, 40.0])
def test_the_temperature_is_the_best_of_a_grid(scale: float) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 60)
    scores = scale * (random.normal(size=(60, 3)) + 1.5 * np.eye(3)[labels])
    assert fit_temperature(scores, labels) == pytest.approx(by_hand(scores, labels), rel=0.02)


def test_rows_that_are_all_right_do_not_make_it_zero() -> None:
    found = fit_temperature(np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([0, 1]))
    assert 0.1 < found < 1.0


@given(st.lists(st.floats(-300, 300), min_size=2, max_size=6), st.floats(0.01, 100))
def test_probabilities_are_positive_sum_to_one_and_keep_the_order(row: list[float], temperature: float) -> None:
    found = probabilities(np.array([row]), temperature)[0]
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    order = np.argsort(row)
    assert (np.diff(found[order]) >= -1e-12).all()
