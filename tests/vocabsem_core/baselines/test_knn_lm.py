"""kNN-LM's rule against a plain loop in float64."""

import math

import pytest
import torch

from vocabsem_core.baselines.knn import nearest
from vocabsem_core.baselines.knn_lm import mixed, neighbour_shares, squared_scale

TRAIN = torch.randn(60, 7, generator=torch.Generator().manual_seed(0)).double() * 5 + 3
QUERIES = torch.randn(9, 7, generator=torch.Generator().manual_seed(1)).double() * 5 + 3
LABELS = torch.arange(60) % 4


def shares_of(queries: torch.Tensor, train: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    gaps, rows = nearest(queries, train, k, "euclidean")
    return neighbour_shares(gaps / squared_scale(train).sqrt(), LABELS[rows], 4, temperature)


def plain(k: int, temperature: float) -> list[list[float]]:
    centre = [sum(float(row[j]) for row in TRAIN) / 60 for j in range(7)]
    spread = sorted(sum((float(row[j]) - centre[j]) ** 2 for j in range(7)) for row in TRAIN)[29]  # the lower median
    found = []
    for query in QUERIES:
        gaps = sorted((sum((float(query[j] - row[j])) ** 2 for j in range(7)), i) for i, row in enumerate(TRAIN))[:k]
        weights = [(math.exp(-gap / (temperature * 2 * spread)), int(LABELS[i])) for gap, i in gaps]
        total = sum(weight for weight, _ in weights)
        found.append([sum(weight for weight, label in weights if label == c) / total for c in range(4)])
    return found


@pytest.mark.parametrize("k", [1, 5, 60, 1000])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_shares_are_those_of_a_plain_loop(k, temperature):
    found = shares_of(QUERIES, TRAIN, k, temperature)
    torch.testing.assert_close(found, torch.tensor(plain(min(k, 60), temperature), dtype=torch.float64))


def test_the_scale_makes_shares_the_same_for_states_of_any_size():
    small = shares_of(QUERIES, TRAIN, 10, 0.3)
    torch.testing.assert_close(small, shares_of(QUERIES * 100, TRAIN * 100, 10, 0.3))
    torch.testing.assert_close(squared_scale(TRAIN * 10), 100 * squared_scale(TRAIN))


def test_a_mixture_lies_between_its_parts_and_sums_to_one():
    near, model = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.8]])
    torch.testing.assert_close(mixed(model, near, 0.25), torch.tensor([[0.375, 0.625]]))
    assert torch.equal(mixed(model, near, 1.0), near)
    assert torch.equal(mixed(model, near, 0.0), model)
