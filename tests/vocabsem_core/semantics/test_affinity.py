"""Semantic logits against scikit-learn's and scipy's similarities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from vocabsem_core.semantics.affinity import Similarity, semantic_logits


def states_and_basis(seed: int = 0, n: int = 40, k: int = 30, d: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randn(k, d, generator=generator)


@pytest.mark.parametrize(
    ("similarity", "oracle"),
    [("cosine", cosine_similarity), ("euclidean", lambda a, b: -cdist(a, b)), ("dot", lambda a, b: a @ b.T)],
)
def test_each_similarity_is_the_textbooks(similarity: Similarity, oracle: object) -> None:
    states, basis = states_and_basis()
    expected = oracle(states.double().numpy(), basis.double().numpy())  # type: ignore[operator]
    np.testing.assert_allclose(semantic_logits(states, basis, similarity).numpy(), expected, atol=1e-5)


def test_distances_tell_rows_apart_however_long_the_state() -> None:
    states, basis = states_and_basis(n=200, k=6, d=64)
    states, basis = 300 * states, 1e-3 * basis
    expected = cdist(states.double().numpy(), basis.double().numpy()).argmin(axis=1)
    np.testing.assert_array_equal(semantic_logits(states, basis, "euclidean").argmax(dim=1).numpy(), expected)
    for part in (states[:20], states[20:]):  # torch takes another way for few rows
        rows = semantic_logits(part, basis, "euclidean").argmax(dim=1)
        np.testing.assert_array_equal(rows, expected[:20] if len(part) == 20 else expected[20:])


def test_cosine_is_the_default() -> None:
    states, basis = states_and_basis()
    assert torch.equal(semantic_logits(states, basis), semantic_logits(states, basis, "cosine"))


@given(seed=st.integers(0, 1000), by_state=st.floats(1e-3, 1e3), by_basis=st.floats(1e-3, 1e3))
def test_cosine_does_not_change_with_the_length_of_states_or_basis(seed: int, by_state: float, by_basis: float) -> None:
    states, basis = states_and_basis(seed, n=5, k=4)
    torch.testing.assert_close(
        semantic_logits(by_state * states, by_basis * basis), semantic_logits(states, basis), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("temperature", [0.1, torch.tensor(0.1)])
def test_temperature_divides_the_logits(similarity: Similarity, temperature: float | Tensor) -> None:
    states, basis = states_and_basis()
    torch.testing.assert_close(
        semantic_logits(states, basis, similarity, temperature), 10 * semantic_logits(states, basis, similarity)
    )


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_a_basis_row_is_most_similar_to_itself(similarity: Similarity) -> None:
    _, basis = states_and_basis()
    assert semantic_logits(basis, basis, similarity).argmax(dim=1).tolist() == list(range(len(basis)))


def test_an_all_zero_state_has_finite_logits() -> None:
    _, basis = states_and_basis()
    assert torch.equal(semantic_logits(torch.zeros(1, 6), basis), torch.zeros(1, len(basis)))
