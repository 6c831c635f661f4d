"""States and logits of every layer are those of plain transformers; a push moves what it should and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.encoder import Encoder
from vocabsem_core.features.heads import head_of
from vocabsem_core.lens.steering import Push, random_like, steered
from vocabsem_core.lens.trace import Tail, last_layer, trace

PROMPT = [5, 9, 17, 200, 31, 6]
BLOCKED = {**tiny.ALL, **tiny.SEQ2SEQ, **{name: build for name, build in tiny.MASKED.items() if name != "albert"}}


def plain(model: Any, name: str) -> Any:
    """A forward pass with nothing of ours in it."""
    inputs = {"input_ids": torch.tensor([PROMPT])}
    if name in tiny.SEQ2SEQ:
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


@pytest.mark.parametrize("name", BLOCKED)
def test_states_of_all_layers_are_those_of_transformers(name: str) -> None:
    model = BLOCKED[name]()
    found, expected = trace(model, PROMPT), plain(model, name)
    hidden = expected.decoder_hidden_states if name in tiny.SEQ2SEQ else expected.hidden_states
    for number, states in enumerate(hidden[:-1]):  # of most families the last one is behind the final norm
        torch.testing.assert_close(found[f"layer_{number:02d}"], states[0])
    head = head_of(model)
    extra = model.final_logits_bias if name == "bart" else 0
    torch.testing.assert_close(head.logits(found["head"]) + extra, expected.logits[0])


@pytest.mark.parametrize("name", BLOCKED)
def test_the_tail_of_the_last_block_is_what_the_head_reads(name: str) -> None:
    model = BLOCKED[name]()
    states = trace(model, PROMPT)
    torch.testing.assert_close(Tail(model)(states[last_layer(model)]), states["head"])


@pytest.mark.parametrize(
    ("name", "norm"), [("gpt2", "transformer.ln_f"), ("llama", "model.norm"), ("gpt_neox", "gpt_neox.final_layer_norm")]
)
def test_the_tail_of_any_layer_is_the_final_norm(name: str, norm: str) -> None:
    model = tiny.ALL[name]()
    states = trace(model, PROMPT)["layer_01"]
    with torch.no_grad():
        torch.testing.assert_close(Tail(model)(states), model.get_submodule(norm)(states))


def test_blocks_that_are_shared_are_named_in_an_error() -> None:
    for read in (Tail, lambda model: trace(model, PROMPT)):
        with pytest.raises(InputError, match=r"found no list of 2 blocks; use layers: \[head\]"):
            read(tiny.albert())


def test_a_model_with_something_else_before_its_head_is_refused() -> None:
    model = tiny.llama()
    model.model.register_forward_hook(lambda _, args, output: _doubled(output))
    Tail(model)  # what is done at each position alone belongs to the tail
    model = tiny.llama()
    calls = iter(range(9))
    model.model.register_forward_hook(lambda _, args, output: _doubled(output, 1 + next(calls)))
    with pytest.raises(InputError, match=r"LlamaForCausalLM: what lies between the last block \(layer_02\)"):
        Tail(model)


def _doubled(output: Any, times: int = 2) -> Any:
    output.last_hidden_state = output.last_hidden_state * times
    return output


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "bert", "t5"])
def test_a_push_is_what_an_edited_forward_pass_gives(name: str) -> None:
    model = BLOCKED[name]()
    place = {"bert": 2, "t5": 0}.get(name, len(PROMPT) - 1)
    last = int(last_layer(model).removeprefix("layer_"))
    moves = torch.randn(3, tiny.WIDTH, generator=torch.Generator().manual_seed(1))
    layers = [1, last, 1]
    pushes = [Push(f"layer_{layer:02d}", move) for layer, move in zip(layers, moves, strict=True)]
    found = head_of(model).logits(steered(model, Encoder(model), PROMPT, place, pushes))
    from vocabsem_core.features.architectures import blocks

    for layer, move, logits in zip(layers, moves, found, strict=True):

        def edit(_: Any, args: Any, output: Any, move: torch.Tensor = move) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            hidden[0, place] += move
            return output

        handle = blocks(model)[layer - 1].register_forward_hook(edit)
        expected = plain(model, name).logits[0, place]
        handle.remove()
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_push_at_no_block_is_refused() -> None:
    model = tiny.gpt2()
    for layer in ("layer_00", "layer_03", "head"):
        with pytest.raises(InputError, match="expected layer_01 to layer_02"):
            steered(model, Encoder(model), PROMPT, len(PROMPT) - 1, [Push(layer, torch.zeros(tiny.WIDTH))])


def test_a_random_direction_is_as_long_as_the_move() -> None:
    move = torch.arange(1.0, 33.0)
    drawn = random_like(move, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.norm(), move.norm())
    assert abs(float(torch.cosine_similarity(drawn, move, dim=0))) < 0.5
