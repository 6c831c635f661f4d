"""Prompts and whole words as lm-evaluation-harness tokenises context and continuation."""

from __future__ import annotations

import pytest
from tokenizers import normalizers

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.prompts import tokenize
from vocabsem_core.features.words import tokenize_words

TOKENIZER, WITH_BOS = tiny.tokenizer(), tiny.tokenizer(bos=True)
REVIEW = "review: {text}\n sentiment:"
WORDS = ["positive", "not equivalent", "film world"]
ROWS = [{"text": "a fine film"}, {"text": "dull " * 9}, {"text": ""}]


def pair(context: str, continuation: str) -> tuple[list[int], list[int]]:
    """lm_eval.api.model.TemplateLM._encode_pair of a causal model, to the letter."""
    if spaces := len(context) - len(context.rstrip()):
        continuation, context = context[-spaces:] + continuation, context[:-spaces]
    whole = TOKENIZER(context + continuation, add_special_tokens=False)["input_ids"]
    own = TOKENIZER(context, add_special_tokens=False)["input_ids"]
    return own, whole[len(own) :]


@pytest.mark.parametrize("template", [REVIEW, REVIEW + " ", "type:\n{text}", "{text} \n", "a {text}  "])
@pytest.mark.parametrize("before", [None, ["input: x\ntype: world\n\n"] * 3])
def test_they_are_tokenised_as_the_harness_does(template: str, before: list[str] | None) -> None:
    rows = ROWS[:2]
    ahead = before[0] if before else ""
    found = tokenize_words(TOKENIZER, template, rows, WORDS, 500, before and before[:2])
    for row, one in zip(rows, found, strict=True):
        pairs = [pair(ahead + template.format(**row), f" {word}") for word in WORDS]
        assert [(one.ids, word) for word in one.words] == pairs
        assert one.cut == 0


def test_special_tokens_stand_as_before_any_prompt() -> None:
    plain, begun = (tokenize_words(made, REVIEW, ROWS, WORDS, 500) for made in (TOKENIZER, WITH_BOS))
    assert [one.ids for one in begun] == [[0, *one.ids] for one in plain]
    assert [one.words for one in begun] == [one.words for one in plain]
    assert [one.ids for one in begun] == [one.ids for one in tokenize(WITH_BOS, REVIEW, ROWS, 500)]


def test_prompt_and_longest_word_fit_the_window() -> None:
    longest = max(len(word) for word in tokenize_words(TOKENIZER, REVIEW, ROWS, WORDS, 500)[0].words)
    long = {"text": "warm and funny " * 20}
    (found,) = tokenize_words(TOKENIZER, REVIEW, [long], WORDS, 40)
    assert len(found.ids) + longest - 1 == 40
    assert (found.ids, found.cut) == ((plain := tokenize(TOKENIZER, REVIEW, [long], 41 - longest)[0]).ids, plain.cut)
    assert found.words == tokenize_words(TOKENIZER, REVIEW, [long], WORDS, 500)[0].words


def test_a_word_without_tokens_is_refused() -> None:
    made = tiny.tokenizer()
    made.backend_tokenizer.normalizer = normalizers.Replace(" world", "")
    with pytest.raises(InputError, match="the first: the word 'world' has no tokens after the prompt"):
        tokenize_words(made, REVIEW, ROWS[:1], ["positive", "world"], 500, names=["the first"])


def test_a_token_that_the_model_lacks_is_refused_with_the_row() -> None:
    with pytest.raises(InputError, match="row 1: token 'zufrieden' has id 320, the model has 320 tokens"):
        tokenize_words(tiny.larger_tokenizer(), REVIEW, ROWS, ["positive", "zufrieden"], 500, vocabulary=320)
