"""Scores against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import accuracy_score, f1_score

from vocabsem_core.scoring import RESAMPLES, Lead, Metric, expected_calibration_error, lead, metric_of, score

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
    names = list(range(classes))
    return float(f1_score(labels, found, labels=names, average="macro", sample_weight=weights, zero_division=0))


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


def two(seed: int = 0, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions that are often right, others that are less so, and labels."""
    (second,), labels = answers(seed, n, 1)
    better = np.random.default_rng(seed + 1).random(n) < 0.25
    return np.where(better, labels, second), second, labels


def won_and_lost(won: int, lost: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, others that are wrong where these are right `won` times, and the reverse; half of the rest right."""
    labels = np.arange(items) % 2
    first = np.where(np.arange(items) % 4 < 2, labels, 1 - labels)
    second = first.copy()
    first[:won], second[:won] = labels[:won], 1 - labels[:won]
    first[won : won + lost], second[won : won + lost] = 1 - labels[won : won + lost], labels[won : won + lost]
    return first, second, labels


@pytest.mark.parametrize("metric", METRICS)
def test_a_lead_is_that_of_a_plain_loop_over_draws_of_items_and_over_swaps(metric: Metric) -> None:
    first, second, labels = two()
    rng, ones = np.random.default_rng(5), np.ones(len(labels))

    def gap(one: np.ndarray, other: np.ndarray, items: np.ndarray) -> float:
        return oracle(metric, labels[items], one[items], 4, ones) - oracle(metric, labels[items], other[items], 4, ones)

    everything = np.arange(len(labels))
    plain = gap(first, second, everything)
    leads = [gap(first, second, rng.integers(len(labels), size=len(labels))) for _ in range(200)]
    swaps = [rng.random(len(labels)) < 0.5 for _ in range(200)]
    others = [gap(np.where(swap, second, first), np.where(swap, first, second), everything) for swap in swaps]
    found = lead(first, second, labels, 4, metric)
    assert found.mean == pytest.approx(plain)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(leads, [0.025, 0.975])), abs=0.03)
    assert found.low < found.mean < found.high
    assert found.p == pytest.approx(np.mean(np.abs(others) >= plain - 1e-9), abs=0.03)


@settings(max_examples=40)
@given(won=st.integers(0, 25), lost=st.integers(0, 25), rest=st.integers(0, 150), seed=st.integers(0, 1000))
def test_p_of_accuracy_is_that_of_the_sign_test_on_the_items_that_differ(
    won: int, lost: int, rest: int, seed: int
) -> None:
    assume(won + lost + rest)
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    found = lead(*won_and_lost(won, lost, won + lost + rest), 2, "accuracy", seed)
    error = (expected * (1 - expected) / RESAMPLES) ** 0.5
    assert abs(found.p - expected) < 5 * error + 2 / RESAMPLES
    assert found.mean == pytest.approx((won - lost) / (won + lost + rest))


def test_four_rows_won_and_none_lost_of_five_hundred_may_be_luck() -> None:
    found = lead(*won_and_lost(4, 0, 500), 2, "accuracy")
    assert found.p == pytest.approx(2 * 0.5**4, abs=0.03)
    assert found.p > 0.05
    assert found.mean == pytest.approx(4 / 500)


def test_twelve_rows_won_and_none_lost_are_more_than_luck_and_p_is_never_zero() -> None:
    assert 0 < lead(*won_and_lost(12, 0, 500), 2, "accuracy").p < 0.01
    assert lead(*won_and_lost(200, 0, 500), 2, "accuracy").p == pytest.approx(1 / (1 + RESAMPLES))


@pytest.mark.parametrize("metric", METRICS)
def test_identical_predictions_lead_by_nothing(metric: Metric) -> None:
    (predictions,), labels = answers(seeds=1)
    assert lead(predictions, predictions.copy(), labels, 4, metric) == Lead(0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_clear_winners_interval_lies_above_zero_and_the_losers_below(metric: Metric) -> None:
    (second,), labels = answers(n=300, seeds=1)
    found, turned = lead(labels, second, labels, 4, metric), lead(second, labels, labels, 4, metric)
    assert 0.2 < found.low < found.mean < found.high < 0.6
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert found.p == turned.p < 0.001


def test_draws_are_paired_so_that_a_small_lead_on_hard_items_is_seen() -> None:
    """Unpaired, the intervals of two scores near a half are five times as wide as this lead."""
    labels = np.zeros(400, dtype=int)
    second = np.arange(400) % 2
    first = second.copy()
    first[1:25:2] = 0
    found = lead(first, second, labels, 2, "accuracy")
    assert found.mean == pytest.approx(0.03)
    assert 0.01 < found.low < found.high < 0.06
    assert found.p < 0.01


def test_the_same_predictions_have_the_same_lead() -> None:
    first, second, labels = two()
    assert lead(first, second, labels, 4, "macro_f1") == lead(first, second, labels, 4, "macro_f1")
    assert lead(first, second, labels, 4, "macro_f1") != lead(first, second, labels, 4, "macro_f1", seed=1)
