"""Centring, against plain tensors."""

from __future__ import annotations

import pytest
import torch

from vocabsem_core.errors import InputError
from vocabsem_core.semantics.centring import Centred, States, centred_rows, moments


@pytest.mark.parametrize("rows", [1, 511, 513, 1500])
def test_moments_are_those_of_the_rows_in_one_piece(rows: int) -> None:
    states = torch.randn(rows, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 10, 0.1, 1, 1]) + 100
    mean, deviation = moments(states)
    torch.testing.assert_close(mean, states.double().mean(dim=0).float())
    expected = states.double().std(dim=0, correction=0).clamp_min(1e-6).float()
    torch.testing.assert_close(deviation, expected, rtol=1e-4, atol=1e-6)


def test_a_constant_dimension_keeps_a_deviation_to_divide_by() -> None:
    assert moments(torch.full((4, 2), 3.0))[1].tolist() == pytest.approx([1e-6, 1e-6])


def test_centred_rows_are_asked_for_as_any_states() -> None:
    states = torch.arange(12.0).reshape(4, 3)
    found = Centred(states, states.mean(dim=0))
    assert isinstance(found, States)
    assert (found.shape, found.dtype) == (states.shape, states.dtype)
    wanted = torch.tensor([[0, 3], [1, 1]])
    assert torch.equal(found[wanted], states[wanted] - states.mean(dim=0))


def test_label_rows_are_seen_from_their_mean() -> None:
    rows = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert torch.equal(centred_rows(rows), torch.tensor([[-1.0, -2.0], [1.0, 2.0]]))


def test_labels_with_one_and_the_same_row_are_refused() -> None:
    with pytest.raises(InputError, match="3 labels have one and the same row; expected label words that differ"):
        centred_rows(torch.ones(3, 2))
