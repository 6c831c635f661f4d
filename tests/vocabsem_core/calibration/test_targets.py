"""Targets that take the basis's place."""

import pytest
import torch

from vocabsem_core.calibration.targets import as_wide_as, centred_means, random_orthogonal
from vocabsem_core.errors import InputError

LIKE = torch.randn(4, 12, generator=torch.Generator().manual_seed(0)) * 7


def test_random_targets_are_orthogonal_as_long_as_the_others_and_the_same_each_time():
    found = random_orthogonal(LIKE)
    length = float(LIKE.norm(dim=1).mean())
    torch.testing.assert_close(found @ found.T, torch.eye(4) * length**2, rtol=1e-4, atol=1e-3)
    assert torch.equal(found, random_orthogonal(LIKE))
    assert not torch.equal(found, random_orthogonal(LIKE, seed=1))


def test_more_targets_than_dimensions_are_refused():
    with pytest.raises(InputError, match="13 labels cannot have orthogonal targets in 12 dimensions"):
        random_orthogonal(torch.ones(13, 12))


def test_class_means_are_seen_from_their_own_mean():
    states, labels = torch.tensor([[9.0, 0.0], [11.0, 0.0], [10.0, 4.0]]), torch.tensor([0, 0, 1])
    torch.testing.assert_close(centred_means(states, labels, 2), torch.tensor([[0.0, -2.0], [0.0, 2.0]]))


def test_an_embedding_of_another_width_is_no_target():
    assert as_wide_as(LIKE, LIKE) is LIKE
    with pytest.raises(InputError, match="the input embedding has 10 dimensions, the head's input 12"):
        as_wide_as(LIKE[:, :10], LIKE)
