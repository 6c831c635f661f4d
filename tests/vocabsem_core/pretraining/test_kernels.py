"""Loss and attention of a training step, values and gradients, against torch's own in float64."""

import pytest
import torch
from torch.nn import functional

from vocabsem_core.pretraining import kernels
from vocabsem_core.pretraining.kernels import causal_attention, summed_loss

SEED = 5


def draw(*shape: int, dtype: torch.dtype = torch.float64, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SEED + sum(shape))
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype).requires_grad_()


def labels(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, tokens, (rows,), generator=torch.Generator().manual_seed(SEED))


def theirs(states: torch.Tensor, head: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Loss and gradients by torch in float64, of a third of the loss."""
    exact = [part.detach().double().requires_grad_() for part in (states, head)]
    loss = functional.cross_entropy(exact[0] @ exact[1].T, expected, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss / 3, exact)


def ours(states: torch.Tensor, head: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, ...]:
    loss = summed_loss(states, head, expected)
    return loss.detach(), *torch.autograd.grad(loss / 3, (states, head))


@pytest.mark.parametrize("rows", [1, 7, 8, 30])  # less than a chunk, one, and several with a rest
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_loss_and_gradients_are_those_of_torch(monkeypatch, rows, dtype, rtol):
    monkeypatch.setattr(kernels, "_ROWS", 8)
    states, head = draw(rows, 5, dtype=dtype), draw(11, 5, dtype=dtype)
    for found, expected in zip(
        ours(states, head, labels(rows, 11)), theirs(states, head, labels(rows, 11)), strict=True
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=rtol)


def test_its_gradients_are_those_of_its_values():
    expected = labels(6, 9)
    assert torch.autograd.gradcheck(lambda states, head: summed_loss(states, head, expected), (draw(6, 4), draw(9, 4)))


def test_a_label_that_is_all_but_impossible_has_a_finite_loss():
    """A gap of 1,000 nats: its probability is zero in any float, its loss is the gap."""
    states, head = torch.ones(1, 1, requires_grad=True), torch.tensor([[1000.0], [0.0]], requires_grad=True)
    loss, of_states, of_head = ours(states, head, torch.tensor([1]))
    assert loss == 1000
    torch.testing.assert_close(of_states * 3, torch.tensor([[1000.0]]))
    torch.testing.assert_close(of_head * 3, torch.tensor([[1.0], [-1.0]]))


def test_products_in_half_precision_change_loss_and_gradients_by_their_rounding():
    states, head = draw(300, 64, dtype=torch.float32), draw(500, 64, dtype=torch.float32, scale=0.1)
    expected = labels(300, 500)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(states, head, expected)
    for half, exact in zip(found, theirs(states, head, expected), strict=True):
        assert half.dtype == torch.float32
        assert (half.double() - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 4e-2)])
def test_attention_and_its_gradients_are_those_of_torch(dtype, rtol):
    query, key, value = (draw(2, 3, tokens, 8, dtype=dtype) for tokens in (6, 6, 6))
    key, value = (part.detach().roll(shift, -2).requires_grad_() for part, shift in ((key, 1), (value, 2)))
    weights = draw(2, 6, 3, 8).detach()
    found, none = causal_attention(None, query, key, value, None, scaling=8**-0.5)
    exact = [part.detach().double().requires_grad_() for part in (query, key, value)]
    expected = functional.scaled_dot_product_attention(*exact, is_causal=True).transpose(1, 2)
    assert none is None
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=rtol)
    gradients = torch.autograd.grad((found.double() * weights).sum(), (query, key, value))
    for one, other in zip(gradients, torch.autograd.grad((expected * weights).sum(), exact), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=rtol)
