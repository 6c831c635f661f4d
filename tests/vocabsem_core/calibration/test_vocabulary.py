"""The log-sum over a vocabulary, by blocks and estimated, against torch's own over all rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.vocabsem_core.calibration.test_batched_training import PAPER, assert_equal_weights, fit, plain_loop
from vocabsem_core.calibration import vocabulary as module
from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack
from vocabsem_core.calibration.modules import Labelled, paper
from vocabsem_core.calibration.vocabulary import TOLERANCE, Vocabulary
from vocabsem_core.semantics.affinity import semantic_logits

WIDTH, ROWS = 48, 6000
DRAW = torch.Generator().manual_seed(0)
BASIS = torch.randn(ROWS, WIDTH, generator=DRAW)
STATES = torch.randn(2, 20, WIDTH, generator=DRAW)  # of two lanes
TEMPERATURES = torch.tensor([1.0, 0.8])
SUMMED, ESTIMATED = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)


def plain(states: Tensor, rows: Tensor, temperatures: Tensor, similarity: Any = "cosine") -> Tensor:
    return torch.logsumexp(semantic_logits(states, rows, similarity, temperatures[:, None, None]), dim=-1)


def value_and_gradients(function: Any, states: Tensor, temperatures: Tensor) -> tuple[Tensor, ...]:
    """Of a function of both, its values weighted."""
    leaves = [part.clone().requires_grad_() for part in (states, temperatures)]
    found = function(*leaves)
    return found.detach(), *torch.autograd.grad((found * torch.arange(found.numel()).view_as(found)).sum(), leaves)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "dot"])
def test_the_sum_by_blocks_and_its_gradients_are_torchs_own(monkeypatch: pytest.MonkeyPatch, similarity: Any) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    rows, states, temperatures = BASIS[:50].double(), 3 * STATES.double(), TEMPERATURES.double()
    whole = Vocabulary(rows)
    ours = value_and_gradients(lambda h, t: whole.log_sums(h, t, similarity, SUMMED), states, temperatures)
    theirs = value_and_gradients(lambda h, t: plain(h, rows, t, similarity), states, temperatures)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-9, atol=1e-9)


def test_an_estimate_of_cosines_is_near_the_sum_and_its_gradients() -> None:
    whole = Vocabulary(BASIS)
    assert not whole.is_summed("cosine")
    assert not whole.off(STATES, TEMPERATURES).any()
    ours = value_and_gradients(lambda h, t: whole.log_sums(h, t, "cosine", ESTIMATED), STATES, TEMPERATURES)
    theirs = value_and_gradients(lambda h, t: plain(h, BASIS, t), STATES, TEMPERATURES)
    assert (ours[0] - theirs[0]).abs().max() < TOLERANCE
    assert (ours[1] - theirs[1]).norm() < 0.05 * theirs[1].norm()  # a small part of the label's own


def test_a_lane_whose_cosines_are_not_normal_is_summed_and_the_other_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bf16_is_fast", lambda device: False)
    near = STATES[1, :5].repeat(100, 1)
    whole = Vocabulary(torch.cat([BASIS, near]))
    off = whole.off(STATES, TEMPERATURES)
    assert off.tolist() == [False, True]
    found = whole.log_sums(STATES, TEMPERATURES, "cosine", off)
    expected = plain(STATES, whole.rows, TEMPERATURES)
    assert (found[1] - expected[1]).abs().max() < 1e-5
    assert 1e-5 < (found[0] - expected[0]).abs().max() < TOLERANCE


@pytest.mark.parametrize(("similarity", "rows"), [("dot", BASIS), ("euclidean", BASIS), ("cosine", BASIS[:4096])])
def test_other_similarities_and_small_vocabularies_are_summed(similarity: Any, rows: Tensor) -> None:
    assert Vocabulary(rows).is_summed(similarity)


def test_bfloat16_products_sum_to_what_float32_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "bf16_is_fast", lambda device: False)
    exact = Vocabulary(BASIS)
    monkeypatch.setattr(module, "bf16_is_fast", lambda device: True)
    fast = Vocabulary(BASIS)
    found, expected = (
        value_and_gradients(lambda h, t, v=v: v.log_sums(h, t, "cosine", SUMMED), STATES, TEMPERATURES)
        for v in (fast, exact)
    )
    assert found[0].dtype == torch.float32
    assert 0 < (found[0] - expected[0]).abs().max() < 1e-4
    assert (found[1] - expected[1]).norm() < 0.02 * expected[1].norm()


def test_a_lane_that_is_off_is_trained_as_a_plain_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 5)  # so that these few rows are estimated at first
    settings = replace(PAPER, temperature=0.7)
    assert_equal_weights(fit([Lane(settings, 3)])[0].weights, plain_loop(settings, 3)[0], within=1e-6)


def test_training_by_estimates_ends_where_training_by_sums_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as the smallest language models: in few dimensions one unit that dies of rounding is a part of it all."""
    draw = torch.Generator().manual_seed(1)
    basis, labels = torch.randn(ROWS, 192, generator=draw), torch.arange(96) % 3
    train = Labelled(basis[labels] + 2 * torch.randn(96, 192, generator=draw), labels)
    settings = replace(PAPER, temperature=1.0, learning_rate=1e-3, epochs=10, batch_size=32)

    def loss_after() -> float:
        """Cross-entropy over all rows."""
        (found,) = fit_pack(train, train, basis[:3], [Lane(settings, 0)], Vocabulary(basis[3:]))
        return float(functional.cross_entropy(semantic_logits(paper(train.states, found.weights), basis), labels))

    estimated = loss_after()
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    summed = loss_after()
    assert estimated != summed
    assert estimated == pytest.approx(summed, abs=1e-4)
    assert summed < float(functional.cross_entropy(semantic_logits(train.states, basis), labels)) - 0.2
