"""Masked models and encoder-decoders: states, rebuilt logits and heads in files, against a plain forward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import kind_of, layer_names, window
from vocabsem_core.features.checkpoints import head_place, load_model
from vocabsem_core.features.encoder import Encoder
from vocabsem_core.features.heads import head_of
from vocabsem_core.features.prompts import tokenize, verbalize

LENGTHS = (5, 11, 3, 7, 20)
PLACES = [2, 0, 1, 6, 13]


@torch.no_grad()
def masked_forward(model: Any, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Embedding output and logits at the places, one prompt at a time."""
    outputs = [model(input_ids=torch.tensor([prompt]), output_hidden_states=True) for prompt in prompts]
    first = torch.stack([out.hidden_states[0][0, place] for out, place in zip(outputs, PLACES, strict=True)])
    return first, torch.stack([out.logits[0, place] for out, place in zip(outputs, PLACES, strict=True)])


@pytest.mark.parametrize("name", tiny.MASKED)
def test_a_masked_models_states_are_those_at_the_mask(name: str) -> None:
    model, prompts = tiny.MASKED[name](), tiny.prompts(*LENGTHS)
    layers = ["layer_00", "head"] if name != "albert" else ["head"]
    states = Encoder(model, layers).encode(prompts, batch_tokens=30, positions=PLACES)
    first, logits = masked_forward(model, prompts)
    torch.testing.assert_close(head_of(model).logits(states["head"]), logits, rtol=1e-4, atol=1e-4)
    if "layer_00" in states:
        torch.testing.assert_close(states["layer_00"], first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", tiny.SEQ2SEQ)
def test_an_encoder_decoders_states_are_those_of_the_first_decoder_position(name: str) -> None:
    model, prompts = tiny.SEQ2SEQ[name](), tiny.prompts(*LENGTHS)
    last_block = layer_names(model)[-2]
    states = Encoder(model, ["layer_00", last_block, "head"]).encode(prompts, batch_tokens=30)
    start = torch.tensor([[model.config.decoder_start_token_id]])
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            out = model(input_ids=torch.tensor([prompt]), decoder_input_ids=start, output_hidden_states=True)
        rebuilt = head_of(model).logits(states["head"][row : row + 1])[0]
        torch.testing.assert_close(rebuilt, out.logits[0, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(states["layer_00"][row], out.decoder_hidden_states[0][0, 0], rtol=1e-4, atol=1e-5)


def test_an_encoder_decoders_layers_are_its_decoders() -> None:
    assert layer_names(tiny.t5()) == ["layer_00", "layer_01", "layer_02", "layer_03", "head"]


def test_shared_blocks_leave_the_head_alone() -> None:
    assert layer_names(tiny.albert()) == ["head"]
    with pytest.raises(InputError, match="has no layer 'layer_00'; it has head alone"):
        Encoder(tiny.albert(), ["layer_00"])


def test_a_bias_added_behind_the_head_is_noticed() -> None:
    """BART adds `final_logits_bias` to its logits, which no LM head holds."""
    model = tiny.bart()
    model.final_logits_bias.fill_(1.0).mul_(torch.arange(model.config.vocab_size))
    with pytest.raises(InputError, match="not one that can be captured"):
        Encoder(model).encode(tiny.prompts(4))


@pytest.mark.parametrize("name", [*tiny.ALL, *tiny.MASKED, *tiny.SEQ2SEQ])
def test_kind_head_and_weights_are_found_in_a_saved_folder(name: str, tmp_path: Path) -> None:
    model = {**tiny.ALL, **tiny.MASKED, **tiny.SEQ2SEQ}[name]()
    tiny.save(tmp_path, model)
    place, expected = head_place(tmp_path), head_of(model)
    torch.testing.assert_close(torch.cat(list(place.blocks(place.rows()))), expected.weight)
    bias = place.read_bias(place.rows())
    assert (bias is None) == (expected.bias is None)
    if bias is not None:
        torch.testing.assert_close(bias, expected.bias)
    loaded = load_model(tmp_path, "float32", "cpu")
    assert kind_of(loaded.config) == (
        "masked" if name in tiny.MASKED else "seq2seq" if name in tiny.SEQ2SEQ else "causal"
    )
    assert type(loaded) is type(model)


def test_bert_is_masked_or_causal_by_its_architecture() -> None:
    assert kind_of(tiny.bert().config) == "masked"
    config = tiny.bert().config
    config.architectures = ["BertLMHeadModel"]
    assert kind_of(config) == "causal"
    for architectures in (None, ["BertForPreTraining"]):
        config.architectures = architectures
        assert kind_of(config) == "masked"


TEMPLATE = "review: {text}\n sentiment: {mask}"


def test_the_position_of_a_masked_prompt_is_its_mask() -> None:
    tokenizer = tiny.masked_tokenizer()
    for prompt in tokenize(tokenizer, TEMPLATE + " .", [{"text": "a fine film"}, {"text": "dull"}], 64):
        assert prompt.ids[prompt.position] == tokenizer.mask_token_id
        assert prompt.position < len(prompt.ids) - 1


def test_truncation_keeps_the_mask() -> None:
    tokenizer = tiny.masked_tokenizer()
    (prompt,) = tokenize(tokenizer, TEMPLATE, [{"text": "warm and funny " * 20}], 24)
    assert len(prompt.ids) == 24
    assert prompt.cut > 0
    assert prompt.ids[prompt.position] == tokenizer.mask_token_id


def test_a_text_that_holds_a_mask_is_refused() -> None:
    rows = [{"text": "a good film"}, {"text": "a <mask> film"}]
    with pytest.raises(InputError, match=r"^row 2: the prompt holds 2 mask tokens, expected one; take <mask> out of"):
        tokenize(tiny.masked_tokenizer(), TEMPLATE, rows, 64)


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    with pytest.raises(InputError, match="has no mask token"):
        tokenize(tiny.tokenizer(), TEMPLATE, [{"text": "a film"}], 64)


def test_label_words_are_read_where_the_mask_stands() -> None:
    tokenizer = tiny.masked_tokenizer()
    masked = verbalize(tokenizer, "review: {text}\n sentiment: {mask} .", {"p": "positive", "n": "negative"})
    assert (
        masked.tokens == verbalize(tokenizer, "review: {text}\n sentiment:", {"p": "positive", "n": "negative"}).tokens
    )


def test_four_bit_without_bitsandbytes_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        load_model(tiny.save(tmp_path, tiny.gpt2()), "float32", "cpu", four_bit=True)


@pytest.mark.parametrize(
    ("architecture", "usable"),
    [("Roberta", 64), ("XLMRoberta", 64), ("Camembert", 64), ("MPNet", 64), ("Bert", 66), ("Electra", 66), ("OPT", 66)],
)
def test_the_window_is_what_the_position_embedding_can_take(architecture: str, usable: int) -> None:
    """RoBERTa and its like count positions from the padding token's id + 1 on."""
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    more = {"ffn_dim": 8, "word_embed_proj_dim": 8} if architecture == "OPT" else {}
    head = "CausalLM" if architecture == "OPT" else "MaskedLM"
    fields = {**settings, **more, "max_position_embeddings": 66, "vocab_size": 20, "pad_token_id": 1}
    model = tiny._build(architecture, fields, head)
    assert window(model) == usable
    with torch.no_grad():
        model(input_ids=torch.full((1, usable), 5))
        if head == "MaskedLM":
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=torch.full((1, usable + 1), 5))
