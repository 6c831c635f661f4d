"""Templates, truncation, and the tokens of label words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.prompts import render, template_fields, tokenize, verbalize
from vocabsem_core.names import LabelTokens

TOKENIZER = tiny.tokenizer()
WITH_BOS = tiny.tokenizer(bos=True)
REVIEW = "review: {text}\n sentiment:"
PAIR = "premise: {a}\nhypothesis: {b}\nprediction:"


def tokens_of(word: str) -> list[int]:
    return TOKENIZER(f" {word}")["input_ids"]


def test_fields_come_in_template_order() -> None:
    assert template_fields(PAIR) == ["a", "b"]


@pytest.mark.parametrize("template", ["no field", "review: {}", "", "{{text}}"])
def test_a_template_without_a_named_field_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="no named field"):
        template_fields(template)


@pytest.mark.parametrize("template", ["review: {text", "review: text}"])
def test_unmatched_braces_are_refused(template: str) -> None:
    with pytest.raises(InputError, match=r"write a field as \{text\}"):
        template_fields(template)


@given(a=st.text(max_size=20), b=st.text(max_size=20))
def test_rendering_is_formatting_and_the_spans_are_the_values(a: str, b: str) -> None:
    text, spans = render(PAIR, {"a": a, "b": b})
    assert text == PAIR.format(a=a, b=b)
    assert [text[start:end] for start, end in spans] == [a, b]


def test_braces_in_texts_and_doubled_braces_in_templates_are_literal() -> None:
    assert render("{{{text}}}", {"text": "{x}"}) == ("{{x}}", [(1, 4)])


def test_a_prompt_that_fits_is_the_tokenizers() -> None:
    (prompt,) = tokenize(WITH_BOS, REVIEW, [{"text": "a fine film"}], 60)
    assert prompt.ids == WITH_BOS("review: a fine film\n sentiment:")["input_ids"]
    assert prompt.cut == 0


@given(text=st.text(max_size=60), limit=st.integers(10, 60))
def test_truncation_takes_text_from_the_left_and_leaves_the_template(text: str, limit: int) -> None:
    whole = WITH_BOS(REVIEW.format(text=text))["input_ids"]
    (prompt,) = tokenize(WITH_BOS, REVIEW, [{"text": text}], limit)
    assert len(prompt.ids) <= limit
    assert prompt.cut == max(0, len(whole) - limit)
    kept = 4 if prompt.cut else 0  # <s>, "review", ":", and the token that begins with the template's space
    assert prompt.ids == whole[:kept] + whole[kept + prompt.cut :]
    decoded = WITH_BOS.decode(prompt.ids)
    assert decoded.startswith("<s>review:")
    assert decoded.endswith("\n sentiment:")


@pytest.mark.parametrize(("n_a", "n_b", "left_a", "left_b"), [(30, 4, 10, 4), (4, 30, 4, 10), (30, 30, 7, 7)])
def test_a_pair_loses_the_tokens_of_its_longer_field(n_a: int, n_b: int, left_a: int, left_b: int) -> None:
    row = {"a": "q" * n_a, "b": "z" * n_b}
    rest = len(TOKENIZER(PAIR.format(**row))["input_ids"]) - n_a - n_b
    (prompt,) = tokenize(TOKENIZER, PAIR, [row], rest + 14)
    assert TOKENIZER.decode(prompt.ids) == PAIR.format(a="q" * left_a, b="z" * left_b)
    assert prompt.cut == n_a + n_b - 14


def test_each_row_is_cut_by_itself() -> None:
    prompts = tokenize(TOKENIZER, REVIEW, [{"text": "q" * n} for n in (2, 50, 3)], 20)
    assert [prompt.cut > 0 for prompt in prompts] == [False, True, False]


def test_a_template_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"alone takes \d+ tokens, the window holds 3"):
        tokenize(TOKENIZER, REVIEW, [{"text": "a fine film"}], 3)


def test_spaces_are_cut_like_other_text_where_the_tokenizer_trims_offsets() -> None:
    """GPT-NeoX's tokenizer gives a token of spaces an empty place in the text."""
    trimming = tiny.tokenizer(trim_offsets=True)
    (prompt,) = tokenize(trimming, REVIEW, [{"text": "a" + " " * 30 + "b"}], 12)
    assert len(prompt.ids) == 12
    assert trimming.decode(prompt.ids).endswith("b\n sentiment:")


@pytest.mark.parametrize(("rule", "pick"), [("first", slice(0, 1)), ("last", slice(-1, None)), ("mean", slice(None))])
def test_each_rule_picks_its_tokens(rule: LabelTokens, pick: slice) -> None:
    words = {"bad": "negative", "good": "warm"}
    found = verbalize(TOKENIZER, REVIEW, words, rule)
    assert found.labels == ["bad", "good"]
    assert found.tokens == [tokens_of("negative")[pick], tokens_of("warm")[pick]]
    assert found.rule == rule


def test_auto_takes_first_tokens_where_all_differ() -> None:
    found = verbalize(TOKENIZER, REVIEW, {"a": "equivalent", "b": "not equivalent", "c": "film"})
    assert found.rule == "first"
    assert found.tokens == [tokens_of(word)[:1] for word in ("equivalent", "not equivalent", "film")]


def test_auto_takes_the_mean_where_two_first_tokens_are_the_same() -> None:
    found = verbalize(TOKENIZER, REVIEW, {"a": "fine", "b": "funny", "c": "film"})
    assert tokens_of("fine")[0] == tokens_of("funny")[0]
    assert found.rule == "mean"
    assert found.tokens == [tokens_of("fine"), tokens_of("funny"), tokens_of("film")]


def test_auto_takes_the_mean_where_a_first_token_is_a_mere_space() -> None:
    pieces = Tokenizer(
        models.Unigram([("▁", -2.0), ("▁film", -3.0), ("▁world", -3.0), ("zebra", -4.0), ("x", -9.0)], 4)
    )
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    spaced = PreTrainedTokenizerFast(tokenizer_object=pieces)
    assert verbalize(spaced, "x {text}", {"a": "film", "b": "world"}).rule == "first"
    found = verbalize(spaced, "x {text}", {"a": "film", "b": "world", "c": "zebra"})
    assert (found.rule, found.tokens) == ("mean", [[1], [2], [0, 3]])


@pytest.mark.parametrize("template", ["{text}", "a: {text}\n b {text} :", "\n{text}\n\n"])
def test_label_tokens_are_those_after_the_prompt(template: str) -> None:
    assert verbalize(WITH_BOS, template, {"a": "film", "b": "world"}).tokens == [tokens_of("film"), tokens_of("world")]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ({"up": "film", "down": "film"}, "auto"),
        ({"up": "fine", "down": "funny"}, "first"),
        ({"up": "equivalent", "down": "not equivalent"}, "last"),
        ({"up": "film world", "down": "world film"}, "mean"),
        ({"up": "film world", "down": "film world"}, "whole"),
    ],
)
def test_labels_of_the_same_tokens_are_refused_by_name(words: dict[str, str], rule: LabelTokens) -> None:
    with pytest.raises(InputError, match=r"labels 'up' and 'down' have the same tokens"):
        verbalize(TOKENIZER, REVIEW, words, rule)


def test_all_labels_of_the_same_tokens_are_named() -> None:
    words = {"a": "film", "b": "world", "c": "film", "d": "world"}
    with pytest.raises(InputError, match=r"labels 'a' and 'c' have .*, 'b' and 'd' have the same tokens .* \(label_"):
        verbalize(TOKENIZER, REVIEW, words)


def test_the_error_names_the_rules_that_tell_the_labels_apart() -> None:
    words = {"up": "film world", "down": "world film"}
    with pytest.raises(InputError, match="`label_tokens: first` and `label_tokens: last` can tell all labels apart"):
        verbalize(TOKENIZER, REVIEW, words, "mean")
    assert verbalize(TOKENIZER, REVIEW, words, "last").tokens == [tokens_of(word)[-1:] for word in words.values()]
    assert verbalize(TOKENIZER, REVIEW, words, "whole").tokens == [tokens_of(word) for word in words.values()]
    mirrored = {"up": "film world film", "down": "film film world", "side": "world film film"}
    with pytest.raises(InputError, match="`label_tokens: whole` can tell all labels apart: set it in the task"):
        verbalize(TOKENIZER, REVIEW, mirrored)
    with pytest.raises(InputError, match="no label_tokens rule can"):
        verbalize(TOKENIZER, REVIEW, {"up": "film", "down": "film"}, "first")


def test_means_of_the_same_tokens_in_other_shares_are_told_apart() -> None:
    words = {"up": "film world", "down": "film film world"}
    assert verbalize(TOKENIZER, REVIEW, words, "mean").rule == "mean"


def test_a_space_around_a_word_does_not_count() -> None:
    plain, spaced = (verbalize(TOKENIZER, REVIEW, {"a": f"{space}film{space}", "b": "fine"}) for space in ("", " "))
    assert plain == spaced


def test_a_word_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match=r"label 'none': the word '' has no tokens"):
        verbalize(_words_only(), REVIEW, {"some": "film", "none": ""})


def _words_only() -> Any:
    """A tokenizer to which spaces are nothing."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "film": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words)


def test_a_label_whose_token_the_model_lacks_is_refused() -> None:
    tokenizer, words = tiny.larger_tokenizer(), {"good": "zufrieden", "bad": "negative"}
    expected = "label 'good', word 'zufrieden': token 'zufrieden' has id 320, the model has 320 tokens: .*resize_token"
    with pytest.raises(InputError, match=expected):
        verbalize(tokenizer, "review: {text}", words, vocabulary=tiny.VOCABULARY)
    assert verbalize(tokenizer, "review: {text}", words, vocabulary=tiny.VOCABULARY + 1).tokens[0][-1] == 320


def test_a_text_with_a_token_the_model_lacks_is_refused_by_its_row() -> None:
    tokenizer, rows = tiny.larger_tokenizer(), [{"text": "a fine film"}, {"text": "a zufrieden film"}]
    with pytest.raises(InputError, match=r"row 2: token 'zufrieden' has id 320, the model has 320 tokens: .*'review"):
        tokenize(tokenizer, "review: {text}", rows, 64, vocabulary=tiny.VOCABULARY)
    with pytest.raises(InputError, match=r"^the second: token 'zufrieden'"):
        tokenize(tokenizer, "review: {text}", rows, 64, names=["the first", "the second"], vocabulary=tiny.VOCABULARY)
    tokenize(tokenizer, "review: {text}", rows, 64, vocabulary=tiny.VOCABULARY + 1)


@pytest.mark.parametrize(
    ("template", "told"),
    [("<s>review: {text}", "begins with <s>"), ("<s> {text}", "begins with <s>"), ("{text} it is {mask}<s>", "ends")],
)
def test_a_special_token_that_the_tokenizer_adds_is_no_part_of_a_template(template: str, told: str) -> None:
    made = tiny.masked_tokenizer()
    ends = processors.TemplateProcessing(single="<s> $A <s>", special_tokens=[("<s>", 0)])
    made.backend_tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), ends])
    with pytest.raises(InputError, match=rf"{told}.*, which the tokenizer adds itself; take it out of the template"):
        tokenize(made, template, [{"text": "a fine film"}], 64)
    (prompt,) = tokenize(tiny.tokenizer(), "<s>review: {text}", [{"text": "a fine film"}], 64)  # adds none
    assert prompt.ids[0] == 0
