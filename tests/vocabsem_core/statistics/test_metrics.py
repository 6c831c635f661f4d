"""Scores against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from vocabsem_core.statistics.metrics import (
    RESAMPLES,
    Metric,
    confusion,
    draws_of_items,
    expected_calibration_error,
    metric_of,
    score,
)

METRICS: list[Metric] = ["accuracy", "macro_f1"]


def answers(seed: int = 0, n: int = 80, seeds: int = 3, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Predictions right about half of the time, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    guesses = rng.integers(classes, size=(seeds, n))
    return np.where(rng.random((seeds, n)) < 0.5, labels, guesses), labels


def oracle(metric: Metric, labels: np.ndarray, found: np.ndarray, classes: int, weights: np.ndarray) -> float:
    if metric == "accuracy":
        return float(accuracy_score(labels, found, sample_weight=weights))
    drawn, there = weights > 0, len(np.union1d(labels, found))  # scikit-learn leaves out what no item of a draw has
    score = f1_score(labels[drawn], found[drawn], average="macro", sample_weight=weights[drawn], zero_division=0)
    return float(score) * there / classes


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(1, 30), classes=st.integers(2, 5))
def test_every_draw_and_seed_scores_as_scikit_learn_has_it(metric: Metric, seed: int, n: int, classes: int) -> None:
    predictions, labels = answers(seed, n, 2, classes)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=3).astype(float)
    weights = np.concatenate([np.ones((1, n)), draws])
    expected = [[oracle(metric, labels, found, classes, draw) for found in predictions] for draw in weights]
    np.testing.assert_allclose(metric_of(predictions, labels, classes, metric, weights), expected, atol=1e-12)


def test_a_class_neither_present_nor_predicted_counts_as_zero() -> None:
    labels = np.array([0, 1, 0, 1])
    assert metric_of(labels[None], labels, 4, "macro_f1", np.ones((1, 4))).item() == 0.5


def test_the_plain_score_is_scikit_learns_with_all_classes_named() -> None:
    predictions, labels = answers(n=12, classes=9)
    expected = [f1_score(labels, one, labels=range(9), average="macro", zero_division=0) for one in predictions]
    np.testing.assert_allclose(metric_of(predictions, labels, 9, "macro_f1", np.ones((1, 12)))[0], expected)


def test_classes_that_a_draw_has_not_put_no_interval_beside_its_score() -> None:
    """Of 77 classes with one row or a few, a draw has two thirds; as zeros they made .57 to .70 of a perfect score."""
    labels = np.arange(77)
    perfect = score(labels[None], labels, 77, "macro_f1")
    assert (perfect.low, perfect.mean, perfect.high) == (1.0, 1.0, 1.0)
    few = np.random.default_rng(0).integers(77, size=200)
    found = score(np.where(np.arange(200) % 10 == 0, (few + 1) % 77, few)[None], few, 77, "macro_f1")
    assert found.low < found.mean < found.high


def test_the_interval_of_accuracy_is_scipys_percentile_bootstrap() -> None:
    predictions, labels = answers(n=150)
    right = (predictions == labels).mean(axis=0)
    expected = bootstrap((right,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    found = score(predictions, labels, 4, "accuracy")
    assert found.mean == pytest.approx(right.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.005)


def test_the_interval_of_macro_f1_is_scipys_percentile_bootstrap() -> None:
    predictions, labels = answers(n=150, seeds=2)

    def mean_over_seeds(items: np.ndarray) -> float:
        return float(np.mean([oracle("macro_f1", labels[items], one[items], 4, items >= 0) for one in predictions]))

    items = np.arange(len(labels))
    expected = bootstrap(
        (items,), mean_over_seeds, n_resamples=250, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = score(predictions, labels, 4, "macro_f1")
    assert found.mean == pytest.approx(mean_over_seeds(items))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_same_predictions_give_the_same_numbers() -> None:
    predictions, labels = answers()
    assert score(predictions, labels, 4, "macro_f1") == score(predictions, labels, 4, "macro_f1")
    assert score(predictions, labels, 4, "macro_f1") != score(predictions, labels, 4, "macro_f1", seed=1)


@pytest.mark.parametrize("at_once", [1, 999, 1 << 23])
def test_draws_are_the_same_in_blocks_as_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vocabsem_core.statistics.metrics._AT_ONCE", at_once)
    blocks = list(draws_of_items(30, np.random.default_rng(3)))
    expected = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=RESAMPLES)
    assert np.array_equal(np.concatenate(blocks), expected)
    assert (len(blocks) == 1) == (at_once > 30 * RESAMPLES)


def test_scoring_leaves_numpys_generator_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    score(*answers(), 4, "accuracy")
    assert np.array_equal(np.random.get_state()[1], before)


def test_each_seed_is_scored_and_their_deviation_is_that_of_a_sample() -> None:
    predictions, labels = answers()
    found = score(predictions, labels, 4, "accuracy")
    expected = [accuracy_score(labels, one) for one in predictions]
    assert found.by_seed == pytest.approx(expected)
    assert found.sd_seeds == pytest.approx(np.std(expected, ddof=1))


def test_one_seed_has_no_deviation() -> None:
    predictions, labels = answers(seeds=1)
    assert score(predictions, labels, 4, "accuracy").sd_seeds is None


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_predictions_score_one_without_doubt(metric: Metric) -> None:
    labels = np.arange(300) % 3
    found = score(labels[None], labels, 3, metric)
    assert (found.low, found.mean, found.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_is_that_of_a_loop_over_the_bins(bins: int) -> None:
    rng = np.random.default_rng(0)
    probabilities, labels = rng.dirichlet(np.ones(3), size=200), rng.integers(3, size=200)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence < (b + 1) / bins)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected)


def test_certain_predictions_are_off_by_their_share_of_errors() -> None:
    certain = np.eye(2)[[0, 0, 1, 1]]
    assert expected_calibration_error(certain, np.array([0, 0, 1, 0])) == pytest.approx(0.25)


def test_the_confusion_matrix_is_scikit_learns_summed_over_seeds() -> None:
    predictions, labels = answers()
    expected = sum(confusion_matrix(labels, one, labels=range(5)) for one in predictions)
    assert np.array_equal(confusion(predictions, labels, 5), expected)
