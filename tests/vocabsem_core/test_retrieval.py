"""Nearest neighbours against scikit-learn's brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from vocabsem_core.retrieval import Distance, knn_votes, nearest

DISTANCES: list[Distance] = ["cosine", "euclidean"]


def random_states(n: int, d: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("k", [1, 4, 15])
def test_votes_choose_scikit_learns_class_ties_included(distance: Distance, k: int) -> None:
    train, queries = random_states(90), random_states(200, seed=1)
    labels = torch.arange(90) % 4
    oracle = KNeighborsClassifier(k, weights="uniform", algorithm="brute", metric=distance)
    oracle.fit(train.double().numpy(), labels.numpy())
    votes = knn_votes(queries, train, labels, 4, k, distance)
    assert votes.argmax(dim=1).tolist() == oracle.predict(queries.double().numpy()).tolist()
    np.testing.assert_allclose(votes.numpy(), oracle.predict_proba(queries.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_neighbours_and_distances_are_right_over_several_chunks(distance: Distance) -> None:
    train, queries = random_states(50), random_states(2100, seed=1)
    gaps, rows = nearest(queries, train, 5, distance)
    oracle = NearestNeighbors(n_neighbors=5, algorithm="brute", metric=distance).fit(train.double().numpy())
    expected_gaps, expected_rows = oracle.kneighbors(queries.double().numpy())
    np.testing.assert_array_equal(rows.numpy(), expected_rows)
    np.testing.assert_allclose(gaps.numpy(), expected_gaps, atol=1e-5)


def test_neighbours_are_exact_where_one_dimension_is_massive() -> None:
    """States of real language models have such dimensions: large, and nearly the same for every prompt."""
    shift = torch.zeros(32)
    shift[3] = 1000
    train, queries = random_states(300, d=32) + shift, random_states(60, d=32, seed=1) + shift
    _, rows = nearest(queries, train, 5, "euclidean")
    oracle = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(train.double().numpy())
    expected = oracle.kneighbors(queries.double().numpy(), return_distance=False)
    np.testing.assert_array_equal(rows.numpy(), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_training_state_is_its_own_nearest_neighbour(distance: Distance) -> None:
    train = random_states(40)
    gaps, rows = nearest(train, train, 3, distance)
    assert rows[:, 0].tolist() == list(range(40))
    assert (gaps.diff(dim=1) >= 0).all()


def test_k_is_at_most_the_number_of_training_states() -> None:
    train = random_states(3)
    assert nearest(random_states(2, seed=1), train, 10, "cosine")[1].shape == (2, 3)
    votes = knn_votes(random_states(2, seed=1), train, torch.tensor([0, 2, 2]), 3, 10, "cosine")
    torch.testing.assert_close(votes, torch.tensor([[1 / 3, 0, 2 / 3]] * 2))


def test_cosine_neighbours_do_not_change_with_length() -> None:
    train, queries = random_states(40), random_states(10, seed=1)
    scaled = train * torch.linspace(0.1, 10, 40)[:, None]
    assert torch.equal(nearest(queries, scaled, 4, "cosine")[1], nearest(7 * queries, train, 4, "cosine")[1])


def test_a_class_that_no_neighbour_has_gets_no_vote() -> None:
    votes = knn_votes(random_states(5), random_states(6, seed=1), torch.zeros(6, dtype=torch.long), 3, 2, "euclidean")
    assert torch.equal(votes, torch.tensor([[1.0, 0.0, 0.0]] * 5))
