"""Paired comparisons against scipy, plain loops, and published examples."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, permutation_test

from tests.vocabsem_core.statistics.test_metrics import METRICS, answers, oracle
from vocabsem_core.statistics.holm import holm
from vocabsem_core.statistics.metrics import Metric, metric_of
from vocabsem_core.statistics.paired_tests import Lead, lead, mcnemar, swaps_as_large
from vocabsem_core.statistics.random_swaps import SWAPS, random_swaps_as_large


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
    found = lead(first[None], second[None], labels, 4, metric)
    assert found.mean == pytest.approx(plain)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(leads, [0.025, 0.975])), abs=0.03)
    assert found.low < found.mean < found.high
    assert found.p == pytest.approx(np.mean(np.abs(others) >= plain - 1e-9), abs=0.03)


@settings(max_examples=20)
@given(won=st.integers(0, 25), lost=st.integers(0, 25), rest=st.integers(0, 150))
def test_p_of_accuracy_of_one_seed_is_that_of_the_exact_mcnemar_test(won: int, lost: int, rest: int) -> None:
    assume(won + lost + rest)
    first, second, labels = won_and_lost(won, lost, won + lost + rest)
    expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
    found = lead(first[None], second[None], labels, 2, "accuracy")
    assert found.p == pytest.approx(expected)
    assert found.mean == pytest.approx((won - lost) / (won + lost + rest))
    told = mcnemar(first, second, labels)
    assert (told.won, told.lost, told.p) == (won, lost, pytest.approx(expected))


def test_four_rows_won_and_none_lost_of_five_hundred_may_be_luck() -> None:
    first, second, labels = won_and_lost(4, 0, 500)
    assert lead(first[None], second[None], labels, 2, "accuracy").p == pytest.approx(2 * 0.5**4)


def test_p_of_macro_f1_is_never_zero() -> None:
    first, second, labels = won_and_lost(200, 0, 500)
    assert lead(first[None], second[None], labels, 2, "macro_f1").p == 1 / (1 + SWAPS)


@settings(max_examples=20)
@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    seeds=st.integers(1, 2),
    seed=st.integers(0, 10_000),
)
def test_p_of_macro_f1_is_near_the_share_of_all_swaps(labels: list[int], seeds: int, seed: int) -> None:
    """Every choice of items to swap, scored by scikit-learn; with four classes, one of them neither present."""
    rng, truth = np.random.default_rng(seed), np.array(labels)
    first, second = rng.integers(3, size=(2, seeds, len(truth)))

    def gap(swap: tuple[bool, ...]) -> float:
        sides = np.where(swap, second, first), np.where(swap, first, second)
        mixed, rest = (np.mean([oracle("macro_f1", truth, one, 4, np.ones(len(truth))) for one in s]) for s in sides)
        return mixed - rest

    gaps = np.abs([gap(swap) for swap in product((False, True), repeat=len(truth))])
    exact = np.mean(gaps >= gaps[0] - 1e-9)
    found = random_swaps_as_large(first, second, truth, 4, np.random.default_rng(0))
    assert found == pytest.approx(exact, rel=0.3)  # six standard errors


def test_p_of_macro_f1_below_a_ten_thousandth_is_told_apart() -> None:
    """Two balanced classes and one seed: macro-F1 is near accuracy, whose exact p is 0.0001 and 0.00003 here."""
    for won in (14, 16):
        first, second, labels = won_and_lost(won, 0, 400)
        exact = mcnemar(first, second, labels).p
        assert lead(first[None], second[None], labels, 2, "macro_f1").p == pytest.approx(exact, rel=0.6)


def test_mcnemar_of_fagerland_lydersen_laake_2013() -> None:
    """BMC Medical Research Methodology 13:91, table 1 (airway hyper-responsiveness): 1, 1, 7, 12; exact p 0.070."""
    labels = np.zeros(21, dtype=int)
    before, after = np.repeat([0, 0, 1, 1], [1, 1, 7, 12]), np.repeat([0, 1, 0, 1], [1, 1, 7, 12])
    told = mcnemar(before, after, labels)
    assert (told.won, told.lost, told.p) == (1, 7, pytest.approx(0.0703, abs=5e-5))


def test_the_randomisation_test_of_darwins_maize_in_fisher_1935() -> None:
    """The Design of Experiments, section 21: of 32,768 choices of signs 1,726 have a sum as large as found, 314."""
    pairs = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
    assert swaps_as_large(pairs) == pytest.approx(1726 / 32768)


@settings(max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_the_exact_p_is_the_share_of_all_signs(differences: list[int]) -> None:
    found = np.array(differences)
    signs = np.array(list(product((-1, 1), repeat=len(found))))
    assert swaps_as_large(found) == pytest.approx(np.mean(np.abs(signs @ found) >= abs(found.sum())))


def test_the_exact_p_over_seeds_is_scipys_permutation_test() -> None:
    first, labels = answers(1, 12, 3)
    second, _ = answers(2, 12, 3)
    right = [(one == labels).mean(axis=0) for one in (first, second)]

    def gap(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.round(np.mean(one - other, axis=axis), 9)  # so that ties are ties

    expected = permutation_test(right, gap, permutation_type="samples", vectorized=True, n_resamples=np.inf)
    assert lead(first, second, labels, 4, "accuracy").p == pytest.approx(expected.pvalue)


def test_large_comparisons_are_exact_too() -> None:
    """30,000 items and three seeds: within what the normal distribution says of so many."""
    rng = np.random.default_rng(0)
    found = rng.integers(-3, 4, size=30_000)
    z = abs(found.sum()) / np.sqrt((found**2).sum())
    assert swaps_as_large(found) == pytest.approx(2 * norm.sf(z), rel=0.02)


@pytest.mark.parametrize("metric", METRICS)
def test_the_lead_of_several_seeds_is_that_of_their_average_scores(metric: Metric) -> None:
    first, labels = answers(3, 90, 3)
    second, _ = answers(4, 90, 2)
    ones = np.ones((1, len(labels)))
    expected = [metric_of(one, labels, 4, metric, ones).mean() for one in (first, second)]
    found = lead(first, second, labels, 4, metric)
    assert found.mean == pytest.approx(expected[0] - expected[1])
    assert found.low < found.mean < found.high
    assert lead(np.repeat(first, 2, axis=0), second, labels, 4, metric).mean == pytest.approx(found.mean)


@pytest.mark.parametrize("metric", METRICS)
def test_under_the_null_p_is_below_a_level_as_often_as_the_level_says(metric: Metric) -> None:
    """Two methods of the same quality, 60 times: p is uniform, if anything a little high, for it is discrete."""
    rng, found = np.random.default_rng(0), []
    for _ in range(60):
        labels = rng.integers(3, size=40)
        first, second = (np.where(rng.random((2, 40)) < 0.6, labels, rng.integers(3, size=(2, 40))) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vocabsem_core.statistics.random_swaps.SWAPS", 199)
            found.append(lead(first, second, labels, 3, metric).p)
    assert np.mean(np.array(found) <= 0.2) == pytest.approx(0.2, abs=0.13)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # the example of Wikipedia, Holm-Bonferroni method
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # R: p.adjust(p, "holm")
        ([0.9, 0.6], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_of_published_examples(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.2))
def test_holm_rejects_what_the_step_down_procedure_rejects(found: list[float], level: float) -> None:
    order = sorted(found)
    kept = next((rank for rank, p in enumerate(order) if p > level / (len(order) - rank)), len(order))
    at_the_border = [abs(p * (len(order) - rank) - level) < 1e-9 for rank, p in enumerate(order)]
    assume(not any(at_the_border))
    assert sum(p <= level for p in holm(found)) == kept


@pytest.mark.parametrize("metric", METRICS)
def test_identical_predictions_lead_by_nothing(metric: Metric) -> None:
    (predictions,), labels = answers(seeds=1)
    assert lead(predictions[None], predictions[None].copy(), labels, 4, metric) == Lead(0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_clear_winners_interval_lies_above_zero_and_the_losers_below(metric: Metric) -> None:
    (second,), labels = answers(n=300, seeds=1)
    found, turned = (
        lead(one[None], other[None], labels, 4, metric) for one, other in ((labels, second), (second, labels))
    )
    assert 0.2 < found.low < found.mean < found.high < 0.6
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert found.p == turned.p < 0.001


def test_draws_are_paired_so_that_a_small_lead_on_hard_items_is_seen() -> None:
    """Unpaired, the intervals of two scores near a half are five times as wide as this lead."""
    labels = np.zeros(400, dtype=int)
    second = np.arange(400) % 2
    first = second.copy()
    first[1:25:2] = 0
    found = lead(first[None], second[None], labels, 2, "accuracy")
    assert found.mean == pytest.approx(0.03)
    assert 0.01 < found.low < found.high < 0.06
    assert found.p < 0.01


def test_the_same_predictions_have_the_same_lead() -> None:
    first, second, labels = two()
    assert lead(first[None], second[None], labels, 4, "macro_f1") == lead(
        first[None], second[None], labels, 4, "macro_f1"
    )
    assert lead(first[None], second[None], labels, 4, "macro_f1") != lead(
        first[None], second[None], labels, 4, "macro_f1", seed=1
    )
