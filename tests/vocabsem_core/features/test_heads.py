"""The output head rebuilds the logits of each architecture."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.heads import OutputHead, head_of, scale_and_softcap


@pytest.mark.parametrize("name", tiny.ALL)
def test_logits_rebuilt_from_last_hidden_states_equal_the_models(name: str) -> None:
    model = tiny.ALL[name]()
    with torch.no_grad():
        plain = model(input_ids=torch.tensor(tiny.prompts(9)), output_hidden_states=True)
    rebuilt = head_of(model).logits(plain.hidden_states[-1][0])
    torch.testing.assert_close(rebuilt, plain.logits[0])


@pytest.mark.parametrize(
    ("name", "scale", "softcap"),
    [("llama", 1.0, None), ("cohere", 0.25, None), ("granite", 1 / 3, None), ("gemma2", 1.0, 2.0)],
)
def test_scale_and_softcap_come_from_the_configuration(name: str, scale: float, softcap: float | None) -> None:
    assert scale_and_softcap(tiny.ALL[name]().config) == (pytest.approx(scale), softcap)


def test_only_the_head_of_phi_has_a_bias() -> None:
    assert [name for name, build in tiny.ALL.items() if head_of(build()).bias is not None] == ["phi"]


def test_a_head_shares_the_models_tensors() -> None:
    model = tiny.phi()
    head = head_of(model)
    assert head.weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert head.bias is not None
    assert head.bias.data_ptr() == model.lm_head.bias.data_ptr()
    assert not head.weight.requires_grad


def test_the_head_of_a_narrow_output_matrix_has_its_width() -> None:
    model = tiny.opt()
    assert head_of(model).weight.shape == (tiny.VOCABULARY, tiny.WIDTH // 2)
    assert model.config.hidden_size == tiny.WIDTH


def test_logits_are_computed_in_the_states_dtype() -> None:
    weight, states = torch.randn(7, 4, dtype=torch.bfloat16), torch.randn(2, 4)
    logits = OutputHead(weight, torch.ones(7, dtype=torch.bfloat16)).logits(states)
    torch.testing.assert_close(logits, states @ weight.float().T + 1)


def test_a_model_without_an_output_matrix_is_refused() -> None:
    with pytest.raises(InputError, match=r"GPT2Model has no LM head.*causal, masked or encoder-decoder"):
        head_of(AutoModel.from_config(tiny.gpt2().config))
