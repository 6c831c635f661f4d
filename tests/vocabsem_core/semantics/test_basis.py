"""The semantic basis against numpy's pseudoinverse in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.semantics.basis import RCOND, round_trip, semantic_basis


def pseudoinverse_rows(weight: Tensor) -> Tensor:
    """Row i is the basis of label i."""
    return torch.from_numpy(np.linalg.pinv(weight.double().numpy().T, rcond=RCOND)).float()


def assert_close_to_pinv(rows: Tensor, weight: Tensor, tolerance: float = 1e-5) -> None:
    expected = pseudoinverse_rows(weight)
    torch.testing.assert_close(rows, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def with_singular_values(v: int, values: Tensor) -> Tensor:
    """A float64 matrix [v, d] of these singular values."""
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(v, len(values), dtype=torch.float64, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator))
    return left @ torch.diag(values) @ right.T


@given(v=st.integers(1, 60), d=st.integers(1, 12), block=st.integers(1, 60), seed=st.integers(0, 1000))
def test_rows_equal_the_pseudoinverse_for_any_shape_and_blocks(v: int, d: int, block: int, seed: int) -> None:
    weight = torch.randn(v, d, generator=torch.Generator().manual_seed(seed))
    assert_close_to_pinv(semantic_basis(weight.split(block)).rows(weight), weight)


def test_full_rank_matrix() -> None:
    weight = with_singular_values(200, torch.linspace(1, 5, 16, dtype=torch.float64)).float()
    basis = semantic_basis([weight])
    assert basis.rank == 16
    assert basis.condition == pytest.approx(5, rel=1e-5)
    assert_close_to_pinv(basis.rows(weight), weight)


def test_rank_deficient_matrix() -> None:
    weight = with_singular_values(100, torch.tensor([3.0, 2.0, 1.0, 0, 0, 0, 0, 0], dtype=torch.float64)).float()
    basis = semantic_basis([weight])
    assert basis.rank == np.linalg.matrix_rank(weight.double().numpy(), rtol=RCOND) == 3
    assert basis.condition == pytest.approx(3, rel=1e-5)
    assert_close_to_pinv(basis.rows(weight), weight)


def test_fewer_labels_than_dimensions() -> None:
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    basis = semantic_basis([weight])
    assert basis.rank == 5
    assert_close_to_pinv(basis.rows(weight), weight)


def test_ill_conditioned_matrix() -> None:
    weight = with_singular_values(300, torch.logspace(0, -4, 24, dtype=torch.float64))
    basis = semantic_basis([weight])
    assert basis.rank == 24
    assert basis.condition == pytest.approx(1e4, rel=1e-3)
    assert_close_to_pinv(basis.rows(weight), weight)


def test_singular_values_below_rcond_are_cut() -> None:
    weight = with_singular_values(50, torch.tensor([1.0, 0.5, 1e-2], dtype=torch.float64))
    assert [semantic_basis([weight], rcond).rank for rcond in (1e-3, 0.1, 0.9)] == [3, 2, 1]


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0, 30.0])
def test_a_shrunken_basis_is_that_of_the_formula(shrinkage: float) -> None:
    weight = torch.randn(60, 7, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 7)
    gram = np.zeros((7, 7))
    for row in weight.double().numpy():
        gram += np.outer(row, row)
    damped = gram + shrinkage * np.trace(gram) / 7 * np.eye(7)
    expected = np.stack([np.linalg.solve(damped, row) for row in weight.double().numpy()])
    found = semantic_basis([weight]).rows(weight, shrinkage)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-9)


def test_a_basis_of_lower_rank_shrinks_within_it() -> None:
    weight = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) @ torch.randn(3, 6)
    gram = weight.double().T @ weight.double()
    expected = weight.double() @ torch.linalg.inv(gram + gram.trace() / 6 * torch.eye(6))
    torch.testing.assert_close(semantic_basis([weight]).rows(weight, 1.0), expected.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_used_at_full_precision(dtype: torch.dtype) -> None:
    weight = torch.randn(150, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = semantic_basis([weight]).rows(weight)
    assert rows.dtype == torch.float32
    assert_close_to_pinv(rows, weight)


def test_blocks_give_the_basis_of_the_whole() -> None:
    weight = torch.randn(130, 8, generator=torch.Generator().manual_seed(0))
    whole, blocks = semantic_basis([weight]), semantic_basis(iter(weight.split(37)))
    torch.testing.assert_close(blocks.inverse, whole.inverse, rtol=1e-10, atol=0)


def test_the_weights_are_left_as_they_were() -> None:
    weight = torch.randn(20, 4, dtype=torch.float64)
    before = weight.clone()
    semantic_basis(weight.split(5))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("block", [7, 64, 200])
def test_round_trip_is_the_share_of_labels_found_again(block: int) -> None:
    weight = torch.randn(200, 12, generator=torch.Generator().manual_seed(0))
    weight = weight * torch.linspace(0.2, 2, 200)[:, None]  # uneven norms: some labels are not found again
    ids = torch.tensor([0, 3, 50, 120, 180, 199])
    rows = semantic_basis([weight]).rows(weight[ids])
    found = (weight.numpy() @ pseudoinverse_rows(weight).numpy()[ids].T).argmax(axis=0)
    expected = float((found == ids.numpy()).mean())
    assert 0 < expected < 1
    assert round_trip(rows, ids, weight.split(block)) == expected


def test_a_square_orthogonal_head_makes_the_whole_round_trip() -> None:
    weight, _ = torch.linalg.qr(torch.randn(10, 10))
    assert round_trip(semantic_basis([weight]).rows(weight), torch.arange(10), [weight]) == 1.0


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "no rows"),
        ([torch.tensor([[1.0, torch.nan]])], "not finite"),
        ([torch.ones(2, 2), torch.tensor([[torch.inf, 0.0]])], "not finite"),
        ([torch.zeros(3, 2)], "all zeros"),
    ],
)
def test_a_broken_output_matrix_is_refused(blocks: list[Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        semantic_basis(blocks)


def test_a_modules_own_weight_may_be_given() -> None:
    weight = torch.nn.Linear(3, 4).weight
    rows = semantic_basis([weight]).rows(weight)
    assert not rows.requires_grad
    torch.testing.assert_close(rows, torch.linalg.pinv(weight.detach().double()).T.float())
