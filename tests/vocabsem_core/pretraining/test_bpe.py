"""The tokenizer writes any text, has the size asked for, and is the same each time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vocabsem_core.errors import InputError
from vocabsem_core.pretraining.bpe import END, train_byte_pairs

TEXT = ["the cat sat on the mat", "the dog sat on the log", "a catalogue of dogs and cats and logs"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_pairs(iter(TEXT), 280, window=64)


@given(st.text())
@settings(max_examples=50)
def test_any_text_comes_back(tokenizer, text):
    if END not in text:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_it_has_the_size_asked_for_and_knows_its_window(tokenizer):
    assert len(tokenizer) == 280
    assert tokenizer.model_max_length == 64
    assert tokenizer(END)["input_ids"] == [0] == [tokenizer.bos_token_id]


def test_it_is_the_same_each_time(tokenizer):
    assert train_byte_pairs(iter(TEXT), 280, window=64).get_vocab() == tokenizer.get_vocab()


def test_a_vocabulary_the_text_does_not_support_is_refused():
    with pytest.raises(InputError, match=r"supports a vocabulary of \d+ tokens, 5000 were asked for"):
        train_byte_pairs(iter(TEXT), 5000, window=64)


def test_a_vocabulary_that_cannot_hold_all_bytes_is_refused():
    with pytest.raises(InputError, match="expected 257 or more"):
        train_byte_pairs(iter(TEXT), 256, window=64)
