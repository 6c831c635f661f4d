"""Nearest neighbours on a GPU against scikit-learn and scipy."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.neighbors import NearestNeighbors

from tests.vocabsem_core.baselines.test_knn_prompting import ANCHORS, CLASSES, HEADS, LABELS, QUERIES, original_rule
from vocabsem_core.baselines.knn import nearest, shares, smallest
from vocabsem_core.baselines.knn_prompting import divergences
from vocabsem_core.features.heads import OutputHead


def drawn(rows, seed):
    return torch.randn(rows, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_neighbours_are_scikit_learns(distance):
    shift = torch.zeros(32)
    shift[3] = 1000 if distance == "euclidean" else 1  # a dimension as real models have it
    train, queries = drawn(300, 0) + shift, drawn(2100, 1) + shift
    gaps, rows = nearest(queries.to("cuda"), train.to("cuda"), 5, distance)
    oracle = NearestNeighbors(n_neighbors=5, algorithm="brute", metric=distance).fit(train.double().numpy())
    expected_gaps, expected_rows = oracle.kneighbors(queries.double().numpy())
    np.testing.assert_array_equal(rows.cpu().numpy(), expected_rows)
    np.testing.assert_allclose(gaps.cpu().numpy(), expected_gaps, atol=1e-5 if distance == "cosine" else 1e-3)


def test_of_equal_states_the_first_is_the_nearest():
    train = (drawn(40, 0) + 100).repeat(3, 1).to("cuda")
    gaps, rows = nearest(train, train, 3, "euclidean")
    assert torch.equal(gaps, torch.zeros_like(gaps))
    assert rows.tolist() == [[row % 40, row % 40 + 40, row % 40 + 80] for row in range(120)]


@pytest.mark.parametrize("name", HEADS)
def test_knn_prompting_is_the_original_rule(name):
    head = HEADS[name]
    bias = None if head.bias is None else head.bias.to("cuda")
    there = OutputHead(head.weight.to("cuda"), bias, head.scale, head.softcap)
    found = divergences(QUERIES.to("cuda"), ANCHORS.to("cuda"), there)
    anchors, queries = (head.logits(states).softmax(dim=1).numpy() for states in (ANCHORS, QUERIES))
    expected = np.stack([rel_entr(anchors, query).sum(axis=1) for query in queries])
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-9)
    votes = shares(LABELS[smallest(found, 8)[1].cpu()], CLASSES)
    assert votes.argmax(dim=1).tolist() == original_rule(head, 8)
