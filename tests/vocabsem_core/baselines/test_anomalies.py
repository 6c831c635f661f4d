"""Scores of anomalies, against NumPy and scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from vocabsem_core.baselines.anomalies import energy, highest, mahalanobis, max_softmax, neighbour_distance

LOGITS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
TRAIN = torch.randn(60, 5, generator=torch.Generator().manual_seed(1))
STATES = 2 * torch.randn(9, 5, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(60) % 3


def test_scores_of_logits() -> None:
    np.testing.assert_allclose(max_softmax(LOGITS), -softmax(LOGITS.numpy(), axis=1).max(axis=1), rtol=1e-5)
    np.testing.assert_allclose(energy(LOGITS), -logsumexp(LOGITS.numpy(), axis=1), rtol=1e-5)
    np.testing.assert_allclose(highest(LOGITS), -LOGITS.numpy().max(axis=1))


def test_mahalanobis_is_that_of_the_covariance_within_classes() -> None:
    train, labels = TRAIN.double().numpy(), LABELS.numpy()
    means = np.stack([train[labels == c].mean(axis=0) for c in range(3)])
    fitted = EmpiricalCovariance(assume_centered=True).fit(train - means[labels])
    expected = np.stack([fitted.mahalanobis(STATES.double().numpy() - mean) for mean in means]).min(axis=0)
    np.testing.assert_allclose(mahalanobis(STATES, TRAIN, LABELS), expected, rtol=1e-4)
    assert torch.isfinite(mahalanobis(STATES, TRAIN[:4], LABELS[:4])).all()  # fewer rows than dimensions


def test_neighbour_distance_is_to_the_kth() -> None:
    found, _ = NearestNeighbors(n_neighbors=4, metric="cosine").fit(TRAIN.numpy()).kneighbors(STATES.numpy())
    np.testing.assert_allclose(neighbour_distance(STATES, TRAIN, 4), found[:, -1], atol=1e-6)
    assert len(neighbour_distance(STATES, TRAIN[:2], 4)) == 9
