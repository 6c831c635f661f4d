"""Bits per byte against log-softmax of one plain forward a text."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
import torch

from tests.vocabsem_core.pretraining.test_trainer import RECIPE
from vocabsem_core.errors import InputError
from vocabsem_core.numerics.ticks import listening
from vocabsem_core.pretraining import bits_per_byte
from vocabsem_core.pretraining.bits_per_byte import per_byte, text_bits
from vocabsem_core.pretraining.bpe import train_byte_pairs
from vocabsem_core.pretraining.trainer import new_model

TEXTS = ["the cat sat", "a dog", "logs and cats and dogs"]


@pytest.fixture(scope="module")
def pair():
    tokenizer = train_byte_pairs(iter(TEXTS * 30), 265, window=16)
    return new_model(dataclasses.replace(RECIPE, vocabulary=265, context=16)).eval(), tokenizer


@torch.inference_mode()
def plain(model, tokenizer, window: list[int]) -> float:
    logits = model(torch.tensor([[tokenizer.bos_token_id, *window]])).logits[0, :-1].double()
    return -float(logits.log_softmax(dim=-1)[range(len(window)), window].sum()) / math.log(2)


def test_bits_are_those_of_a_plain_forward(pair):
    model, tokenizer = pair
    expected = [plain(model, tokenizer, tokenizer(text)["input_ids"]) for text in TEXTS]
    assert text_bits(model, tokenizer, TEXTS) == pytest.approx(expected, rel=1e-5)


def test_a_long_text_goes_on_in_windows_that_do_not_overlap(pair):
    model, tokenizer = pair
    text = " ".join(TEXTS * 3)
    ids = tokenizer(text)["input_ids"]
    assert len(ids) > 30
    expected = sum(plain(model, tokenizer, ids[start : start + 15]) for start in range(0, len(ids), 15))
    assert text_bits(model, tokenizer, [text])[0] == pytest.approx(expected, rel=1e-5)


def test_progress_is_told_after_every_batch(pair, monkeypatch):
    monkeypatch.setattr(bits_per_byte, "_BATCH_TOKENS", 1)
    told = []
    with listening(lambda done, of, unit, note: told.append((done, of))):
        text_bits(*pair, TEXTS)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_untrained_model_needs_about_the_logarithm_of_its_vocabulary_a_token(pair):
    model, tokenizer = pair
    tokens = sum(len(tokenizer(text)["input_ids"]) for text in TEXTS)
    assert text_bits(model, tokenizer, TEXTS).sum() / tokens == pytest.approx(math.log2(265), rel=0.05)


@pytest.mark.parametrize("texts", [[], ["words", ""]])
def test_no_text_is_refused(pair, texts):
    with pytest.raises(InputError, match="no text"):
        text_bits(*pair, texts)


def test_all_texts_count_by_their_bytes():
    mean, low, high = per_byte(np.array([8.0, 2.0]), np.array([2, 2]))
    assert (mean, low, high) == (2.5, 1.0, 4.0)


def test_the_interval_is_that_of_a_table_of_draws_which_is_never_there():
    draw = np.random.default_rng(3)
    found, sizes = draw.random(2000) * 900, draw.integers(1, 5000, 2000)
    tracemalloc.start()
    interval = per_byte(found, sizes)[1:]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    drawn = np.random.default_rng(0).integers(2000, size=(1000, 2000))
    ratios = found[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    assert interval == tuple(np.percentile(ratios, [2.5, 97.5]))
    assert peak < drawn.nbytes / 20
