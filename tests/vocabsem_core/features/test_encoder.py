"""States against a plain transformers forward of one prompt at a time, without padding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM

from tests import tiny
from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack
from vocabsem_core.calibration.modules import Calibration, CalibrationSettings, Labelled
from vocabsem_core.errors import InputError
from vocabsem_core.features import encoder as encoder_module
from vocabsem_core.features.architectures import blocks
from vocabsem_core.features.encoder import Encoder, batches, common_prefix, layer_names
from vocabsem_core.features.heads import head_of

LENGTHS = (3, 11, 1, 7, 20, 7, 2)
LAYERS = ["layer_00", "layer_01", "layer_02", "head"]
# From the last block's output to the input of the LM head.
TAILS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "gpt2": lambda model, states: model.transformer.ln_f(states),
    "gpt_neox": lambda model, states: model.gpt_neox.final_layer_norm(states),
    "phi": lambda model, states: model.model.final_layernorm(states),
    "opt": lambda model, states: model.model.decoder.project_out(model.model.decoder.final_layer_norm(states)),
}


@torch.no_grad()
def plain_forward(model: Any, prompts: list[list[int]]) -> tuple[list[Tensor], Tensor]:
    """Hidden states (embedding first; the last is the head's input) and logits at the last token of each prompt."""
    outputs = [model(input_ids=torch.tensor([prompt]), output_hidden_states=True) for prompt in prompts]
    depth = len(outputs[0].hidden_states)
    hidden = [torch.stack([output.hidden_states[k][0, -1] for output in outputs]) for k in range(depth)]
    return hidden, torch.stack([output.logits[0, -1] for output in outputs])


@pytest.mark.parametrize("name", tiny.ALL)
def test_states_of_every_layer_equal_a_plain_forward(name: str) -> None:
    model, prompts = tiny.ALL[name](), tiny.prompts(*LENGTHS)
    states = Encoder(model, LAYERS).encode(prompts, batch_tokens=24)
    hidden, logits = plain_forward(model, prompts)
    assert list(states) == LAYERS
    for layer, expected in zip(["layer_00", "layer_01", "head"], hidden, strict=True):
        torch.testing.assert_close(states[layer], expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        tail = TAILS.get(name, lambda model, states: model.model.norm(states))(model, states["layer_02"])
    torch.testing.assert_close(tail, hidden[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head_of(model).logits(states["head"]), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_layers_on_several_devices_give_the_same_states(name: str, tmp_path: Path) -> None:
    """The last block lies on disk: as on two GPUs, accelerate brings what a layer needs to where it runs."""
    model, prompts, layers = tiny.ALL[name](), tiny.prompts(*LENGTHS), [*LAYERS, "layer_01:mean"]
    expected = Encoder(model, layers).encode(prompts, 24)
    last = next(part for part, module in model.named_modules() if module is blocks(model)[-1])
    places = dict.fromkeys(parts_beside(model, last), "cpu") | {last: "disk"}
    spread = dispatch_model(copy.deepcopy(model), places, main_device="cpu", offload_dir=tmp_path)
    assert next(blocks(spread)[-1].parameters()).device.type == "meta"
    prefix = [[5, 6, *prompt] for prompt in prompts]
    for found, wanted in (
        (Encoder(spread, layers).encode(prompts, 24), expected),
        (Encoder(spread, ["head"]).encode(prefix, 24, shared=2), Encoder(model, ["head"]).encode(prefix, 24, shared=2)),
    ):
        for layer in found:
            torch.testing.assert_close(found[layer], wanted[layer])


def parts_beside(model: Any, last: str) -> list[str]:
    """The modules with weights of their own that are not within one."""
    own = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    return [name for name in own if not name.startswith(f"{last}.")]


@pytest.mark.parametrize("name", tiny.ALL)
def test_means_are_over_each_prompts_own_tokens(name: str) -> None:
    model, prompts, layers = tiny.ALL[name](), tiny.prompts(*LENGTHS), ["layer_01:mean", "head:mean", "head"]
    states = Encoder(model, layers).encode(prompts, batch_tokens=24)
    assert list(states) == layers
    with torch.no_grad():
        hidden = [
            model(input_ids=torch.tensor([p]), output_hidden_states=True, return_dict=True).hidden_states
            for p in prompts
        ]
    for layer, place in (("layer_01:mean", 1), ("head:mean", -1)):
        expected = torch.stack([of_layers[place][0].mean(dim=0) for of_layers in hidden])
        torch.testing.assert_close(states[layer], expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_decoder_has_no_means() -> None:
    with pytest.raises(InputError, match="one position, so there is no mean; take 'head'"):
        Encoder(tiny.t5(), ["head:mean"])


@pytest.mark.parametrize("batch_tokens", [1, 7, 22, 64, 2048])
def test_states_do_not_depend_on_the_batch_size(batch_tokens: int) -> None:
    model, prompts = tiny.gpt2(), tiny.prompts(*LENGTHS)
    states = Encoder(model).encode(prompts, batch_tokens)
    torch.testing.assert_close(states["head"], plain_forward(model, prompts)[0][-1], rtol=1e-4, atol=1e-5)


def test_states_of_a_half_precision_model_keep_its_dtype() -> None:
    model, prompts = tiny.llama().to(torch.bfloat16), tiny.prompts(*LENGTHS)
    states = Encoder(model).encode(prompts)["head"]
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states, plain_forward(model, prompts)[0][-1], rtol=0.1, atol=0.1)


def test_only_the_layers_asked_for_come_back() -> None:
    assert list(Encoder(tiny.llama(), ["layer_01"]).encode(tiny.prompts(4))) == ["layer_01"]


def test_a_model_is_left_without_hooks() -> None:
    model, prompt = tiny.gpt2(), torch.tensor(tiny.prompts(5))
    before = model(input_ids=prompt).logits
    Encoder(model, LAYERS).encode(tiny.prompts(5))
    assert torch.equal(model(input_ids=prompt).logits, before)


def test_layer_names_count_the_blocks_of_every_architecture() -> None:
    assert {name: layer_names(build()) for name, build in tiny.ALL.items()} == dict.fromkeys(tiny.ALL, LAYERS)


def test_layers_are_those_of_the_part_that_writes() -> None:
    assert [layer_names(build()) for build in (tiny.gemma3, tiny.t5gemma, tiny.mamba)] == [LAYERS] * 3
    model, prompts = tiny.gemma3(), tiny.prompts(4, 9)
    found = Encoder(model, ["layer_00", "layer_01", "head"]).encode(prompts)
    for row, prompt in enumerate(prompts):
        hidden = model(input_ids=torch.tensor([prompt]), output_hidden_states=True).hidden_states
        for layer, expected in (("layer_00", hidden[0]), ("layer_01", hidden[1]), ("head", hidden[-1])):
            torch.testing.assert_close(found[layer][row], expected[0, -1], rtol=1e-4, atol=1e-5)


def test_an_unknown_layer_is_refused_with_the_layers_there_are() -> None:
    with pytest.raises(InputError, match=r"LlamaForCausalLM has no layer 'layer_03'; it has layer_00 to layer_02"):
        Encoder(tiny.llama(), ["head", "layer_03"])


class ScaledLlama(LlamaForCausalLM):
    """Logits that do not follow from the LM head."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = 1.5 * output.logits
        return output


class ShiftedLlama(LlamaForCausalLM):
    """A norm's worth of difference, only in the logits."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + torch.linspace(0, 1, output.logits.shape[-1])
        return output


@pytest.mark.parametrize("architecture", [ScaledLlama, ShiftedLlama])
def test_a_model_whose_logits_cannot_be_rebuilt_is_refused(architecture: type) -> None:
    model = architecture(tiny.llama().config).eval()
    with pytest.raises(InputError, match=rf"{architecture.__name__}: logits rebuilt .* differ"):
        Encoder(model).encode(tiny.prompts(4, 6))


def test_a_model_whose_logits_are_not_finite_is_refused() -> None:
    model = tiny.llama()
    torch.nn.init.constant_(model.model.norm.weight, torch.nan)
    with pytest.raises(InputError, match="logits rebuilt"):
        Encoder(model).encode(tiny.prompts(4))


def test_a_model_without_a_list_of_blocks_gives_its_head_states() -> None:
    model = tiny.llama()
    model.config.num_hidden_layers = 9  # no list of modules has this length
    with pytest.raises(InputError, match=r"it has head alone"):
        Encoder(model, ["layer_00"])
    prompts = tiny.prompts(4)
    torch.testing.assert_close(Encoder(model, ["head"]).encode(prompts)["head"], plain_forward(model, prompts)[0][-1])


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="prompt"):
        Encoder(tiny.llama()).encode([*tiny.prompts(5, 4), []])


@pytest.mark.parametrize("module", ["residual", "paper"])
def test_a_calibrator_can_be_trained_on_the_states_as_they_come(module: Any) -> None:
    states = Encoder(tiny.llama()).encode(tiny.prompts(*LENGTHS))["head"]
    rows = Labelled(states, torch.tensor([0, 1, 0, 1, 0, 1, 0]))
    settings = CalibrationSettings(module=module, rank=2, epochs=1, patience=None)
    (found,) = fit_pack(rows, rows, states[:2], [Lane(settings, 0)])
    assert isinstance(found, Calibration)
    assert found.epoch == 1


@given(lengths=st.lists(st.integers(1, 50), max_size=40), budget=st.integers(1, 200))
def test_batches_partition_the_prompts_within_the_budget(lengths: list[int], budget: int) -> None:
    found = list(batches(lengths, budget))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@pytest.mark.parametrize("name", tiny.ALL)
@pytest.mark.parametrize("batch_tokens", [1, 24, 1024])
def test_states_after_a_shared_prefix_equal_a_plain_forward(name: str, batch_tokens: int) -> None:
    """The prefix, run once, is longer than the windows of the models with sliding attention."""
    model, (prefix,) = tiny.ALL[name](), tiny.prompts(37)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    encoder = Encoder(model, LAYERS)
    states = encoder.encode(prompts, batch_tokens, shared=len(prefix))
    hidden, logits = plain_forward(model, prompts)
    for layer, expected in zip(["layer_00", "layer_01", "head"], hidden, strict=True):
        torch.testing.assert_close(states[layer], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head_of(model).logits(states["head"]), logits, rtol=1e-4, atol=1e-5)
    again = encoder.encode(prompts, batch_tokens, shared=len(prefix))  # the prefix's keys were not added to
    assert all(torch.equal(states[layer], again[layer]) for layer in LAYERS)


def test_means_are_over_a_shared_prefix_too() -> None:
    model, (prefix,), layers = tiny.llama(), tiny.prompts(37), ["layer_01:mean", "head", "head:mean"]
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    states = Encoder(model, layers).encode(prompts, batch_tokens=24, shared=len(prefix))
    plain = Encoder(model, layers).encode(prompts)
    assert states.keys() == plain.keys()
    for layer, expected in plain.items():
        torch.testing.assert_close(states[layer], expected, rtol=1e-4, atol=1e-5)


def test_a_shared_prefix_is_run_once() -> None:
    model, (prefix,) = tiny.gpt2(), tiny.prompts(30)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    read: list[tuple[int, ...]] = []
    model.transformer.h[0].register_forward_pre_hook(lambda _, args: read.append(tuple(args[0].shape[:2])))
    encoder = Encoder(model)
    encoder.encode(prompts, shared=30)  # with the check of the first prompts
    read.clear()
    encoder.encode(prompts, batch_tokens=44, shared=30)
    assert read[0] == (1, 30)
    assert sum(rows * tokens for rows, tokens in read[1:]) < 2 * sum(LENGTHS)


def test_a_large_models_prefix_is_held_for_few_prompts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (prefix,) = tiny.gpt2(), tiny.prompts(30)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    expected = Encoder(model).encode(prompts, shared=30)["head"]
    held = 30 * 2 * model.config.n_layer * model.config.n_embd * 4  # keys and values in float32
    monkeypatch.setattr(encoder_module, "_HELD_BYTES", 2 * held)
    rows: list[int] = []
    model.transformer.h[0].register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
    found = Encoder(model).encode(prompts, shared=30)["head"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert max(rows) == 2


def test_a_prefix_whose_cache_is_not_keys_and_values_is_run_with_each_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (prefix,) = tiny.gpt2(), tiny.prompts(30)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    monkeypatch.setattr("vocabsem_core.features.encoder.DynamicCache", type("Another", (), {}))
    states = Encoder(model).encode(prompts, shared=30)
    torch.testing.assert_close(states["head"], plain_forward(model, prompts)[0][-1], rtol=1e-4, atol=1e-5)


def test_a_prefix_of_a_model_without_keys_and_values_is_run_with_each_prompt() -> None:
    (prefix,) = tiny.prompts(30)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    found = Encoder(tiny.mamba()).encode(prompts, shared=30)["head"]
    torch.testing.assert_close(found, Encoder(tiny.mamba()).encode(prompts)["head"])


def test_a_wrong_prefix_state_is_found_on_the_first_prompts() -> None:
    model, (prefix,) = tiny.gpt2(), tiny.prompts(30)
    other = [[1, *prefix[1:], *prompt] for prompt in tiny.prompts(*LENGTHS)]
    encoder = Encoder(model)
    with pytest.raises(InputError, match="differ from the model's own"):
        encoder.encode([prefix + tiny.prompts(4)[0], *other], shared=30)


@given(
    prefix=st.lists(st.integers(0, 3), max_size=6),
    rests=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=5),
)
def test_a_common_prefix_leaves_a_token_of_each(prefix: list[int], rests: list[list[int]]) -> None:
    prompts = [prefix + rest for rest in rests]
    shared = common_prefix(prompts)
    assert len(prefix) <= shared < min(map(len, prompts))
    assert all(prompt[:shared] == prompts[0][:shared] for prompt in prompts)
    assert shared == min(map(len, prompts)) - 1 or len({prompt[shared] for prompt in prompts}) > 1


def test_a_batch_holds_no_more_prompts_than_it_may() -> None:
    assert [len(batch) for batch in batches([5] * 7, 1000, most=3)] == [3, 3, 1]
