"""The head of any module is the linear layer whose output it returns; states are what that layer is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vocabsem_core.errors import InputError
from vocabsem_core.features.modules import ModuleEncoder
from vocabsem_core.semantics.basis import semantic_basis


class Policy(nn.Module):
    """Two heads, declared before the body and in another order than they run."""

    def __init__(self) -> None:
        super().__init__()
        self.actions, self.value = nn.Linear(6, 3, bias=False), nn.Linear(6, 1)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Tanh())

    def forward(self, given: Tensor) -> dict[str, Tensor]:
        states = self.body(given)
        return {"value": self.value(states), "logits": self.actions(states)}


class Late(nn.Module):
    """Changes its logits once it has been tried out."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.calls = nn.Linear(4, 3), 0

    def forward(self, given: Tensor) -> Tensor:
        self.calls += 1
        return self.head(given) if self.calls == 1 else self.head(given) * 2


def test_a_named_head_of_several() -> None:
    policy = Policy()
    encoder = ModuleEncoder(policy, torch.zeros(4), "actions")
    inputs = torch.rand(10, 4)
    states = encoder.encode(inputs, batch_rows=3)
    with torch.inference_mode():
        torch.testing.assert_close(states, policy.body(inputs))  # in evaluation mode: nothing is dropped
        torch.testing.assert_close(encoder.head.logits(states), policy(inputs)["logits"])
    basis = semantic_basis([encoder.head.weight]).rows(encoder.head.weight)
    torch.testing.assert_close(basis, torch.linalg.pinv(policy.actions.weight.detach()).T, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "head", "told"),
    [
        (Policy(), None, "returns the outputs of 2 linear layers: 'actions', 'value'; name one"),
        (Policy(), "value", "head 'value' has 1 class; expected two or more"),
        (Policy(), "body.0", "does not return what linear layer 'body.0' gives"),
        (Policy(), "action", "no linear layer 'action'; the module has 'actions', 'value', 'body.0'"),
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh()), None, "nothing may follow the head"),
        (nn.Sequential(nn.Flatten(), nn.ReLU()), None, "Its linear layers: none"),
    ],
)
def test_a_module_without_one_linear_head_is_refused(module: nn.Module, head: str | None, told: str) -> None:
    with pytest.raises(InputError, match=told):
        ModuleEncoder(module, torch.zeros(4), head)


def test_a_state_for_each_row_and_the_modules_own_logits_are_checked() -> None:
    with pytest.raises(InputError, match=r"was given inputs of shape \(2, 5, 4\) for 2 rows; expected one of"):
        ModuleEncoder(nn.Sequential(nn.Linear(4, 3)), torch.zeros(5, 4)).encode(torch.zeros(2, 5, 4))
    with pytest.raises(InputError, match="logits rebuilt from its input differ from the module's own by"):
        ModuleEncoder(Late(), torch.zeros(4)).encode(torch.rand(2, 4))


def test_what_is_no_input() -> None:
    encoder = ModuleEncoder(nn.Sequential(nn.Linear(4, 3)), torch.zeros(4))
    assert encoder.check(torch.ones(4)) is None
    assert "is a list; expected a tensor" in str(encoder.check([1.0]))
    assert "has shape (5,)" in str(encoder.check(torch.ones(5)))
    assert "torch.int64" in str(encoder.check(torch.ones(4, dtype=torch.int64)))
    assert "not finite" in str(encoder.check(torch.full((4,), torch.nan)))
