"""AUROC and FPR95 are those of scikit-learn's ROC curve; their draws are of the items."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from vocabsem_core.statistics.anomalies import detection, detection_draws


@pytest.mark.parametrize("decimals", [1, 6])  # with ties, and without
@pytest.mark.parametrize("seed", range(4))
def test_detection_is_scikit_learns(seed: int, decimals: int) -> None:
    random = np.random.default_rng(seed)
    known = random.normal(0, 1, 57).round(decimals)
    anomalies = random.normal(1, 1, 31).round(decimals)
    truth, scores = np.repeat([0, 1], [57, 31]), np.concatenate([known, anomalies])
    assert detection(known, anomalies, "auroc") == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert detection(known, anomalies, "fpr95") == pytest.approx(false[np.argmax(true >= 0.95)])


def test_draws_are_around_the_value_and_of_the_same_items_for_one_seed() -> None:
    random = np.random.default_rng(0)
    known, anomalies = random.normal(0, 1, 80), random.normal(1.5, 1, 40)
    draws = detection_draws(known, anomalies, "auroc")
    low, high = np.quantile(draws, [0.025, 0.975])
    assert low < detection(known, anomalies, "auroc") < high
    np.testing.assert_array_equal(detection_draws(2 * known, 2 * anomalies, "auroc"), draws)


def test_all_told_apart() -> None:
    known, anomalies = np.arange(10.0), np.arange(10.0, 20.0)
    assert detection(known, anomalies, "auroc") == 1
    assert detection(known, anomalies, "fpr95") == 0
    assert detection(anomalies, known, "auroc") == 0
