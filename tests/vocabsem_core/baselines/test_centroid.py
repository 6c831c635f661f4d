"""Nearest class means against scikit-learn."""

import torch
from sklearn.neighbors import NearestCentroid

from vocabsem_core.baselines.centroid import centroid_scores, class_means


def test_predictions_are_scikit_learns():
    states = torch.randn(90, 8, generator=torch.Generator().manual_seed(0)) + 50
    queries = torch.randn(200, 8, generator=torch.Generator().manual_seed(1)) + 50
    labels = torch.arange(90) % 4 // 2 + torch.arange(90) % 2
    oracle = NearestCentroid().fit(states.double().numpy(), labels.numpy())
    means = class_means(states, labels, 3)
    torch.testing.assert_close(means.double(), torch.from_numpy(oracle.centroids_), atol=1e-4, rtol=0)
    found = centroid_scores(queries, means).argmax(dim=1)
    assert found.tolist() == oracle.predict(queries.double().numpy()).tolist()
