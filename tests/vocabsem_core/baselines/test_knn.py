"""Nearest neighbours against scikit-learn's brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from vocabsem_core.baselines.knn import Distance, nearest, shares, smallest

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
    votes = shares(labels[nearest(queries, train, k, distance)[1]], 4)
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


def test_of_equal_states_the_first_is_the_nearest_and_no_way_off() -> None:
    train = (random_states(40, d=300) + 100).repeat(3, 1)
    gaps, rows = nearest(train, train, 3, "euclidean")
    assert torch.equal(gaps, torch.zeros(120, 3))
    assert rows.tolist() == [[row % 40, row % 40 + 40, row % 40 + 80] for row in range(120)]


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_training_state_is_its_own_nearest_neighbour(distance: Distance) -> None:
    train = random_states(40)
    gaps, rows = nearest(train, train, 3, distance)
    assert rows[:, 0].tolist() == list(range(40))
    assert (gaps.diff(dim=1) >= 0).all()


def test_k_is_at_most_the_number_of_training_states() -> None:
    train = random_states(3)
    assert nearest(random_states(2, seed=1), train, 10, "cosine")[1].shape == (2, 3)
    votes = shares(torch.tensor([0, 2, 2])[nearest(random_states(2, seed=1), train, 10, "cosine")[1]], 3)
    torch.testing.assert_close(votes, torch.tensor([[1 / 3, 0, 2 / 3]] * 2))


def test_cosine_neighbours_do_not_change_with_length() -> None:
    train, queries = random_states(40), random_states(10, seed=1)
    scaled = train * torch.linspace(0.1, 10, 40)[:, None]
    assert torch.equal(nearest(queries, scaled, 4, "cosine")[1], nearest(7 * queries, train, 4, "cosine")[1])


def test_a_class_that_no_neighbour_has_gets_no_vote() -> None:
    assert torch.equal(shares(torch.zeros(5, 2, dtype=torch.long), 3), torch.tensor([[1.0, 0.0, 0.0]] * 5))


@pytest.mark.parametrize("k", [1, 2, 7, 300, 999, 1000, 2000])
def test_the_smallest_are_the_beginning_of_a_stable_sort(k: int) -> None:
    """Many equal ones, some below zero by rounding, in more rows than a chunk has."""
    gaps = torch.randint(-1, 40, (1100, 1000), generator=torch.Generator().manual_seed(0)) / 8
    gaps = gaps.where(gaps >= 0, -1e-9)
    values, columns = smallest(gaps, k)
    expected = np.argsort(gaps.clamp_min(0).numpy(), axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(columns.numpy(), expected)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(gaps.numpy(), expected, 1))


def test_what_is_no_number_is_never_near() -> None:
    nan = torch.zeros(1, 1) / 0
    assert smallest(torch.tensor([[0.5, float("nan"), 0.2]]), 2)[1].tolist() == [[2, 0]]
    assert smallest(torch.cat([torch.tensor([[0.5]]), -nan], dim=1), 1)[1].tolist() == [[0]]
    states = torch.tensor([[1.0], [float("nan")], [3.0]])
    assert nearest(torch.tensor([[2.9]]), states, 2, "euclidean")[1].tolist() == [[2, 0]]
