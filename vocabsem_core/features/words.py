"""Prompts with whole label words after them, tokenised as lm-evaluation-harness does the choices of an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vocabsem_core.errors import InputError
from vocabsem_core.features.prompts import check_known, encoded, fitted, rendered


@dataclass(frozen=True)
class WordPrompt:
    """A tokenised prompt and what may follow it.

    Attributes:
        ids: token ids of the prompt, special tokens included, without the spaces at its end.
        words: the token ids of each label's word after it, one or more.
        cut: text tokens removed so that prompt and words fit the window.
    """

    ids: list[int]
    words: list[list[int]]
    cut: int


def tokenize_words(
    tokenizer: Any,
    template: str,
    rows: Sequence[Mapping[str, str]],
    words: Sequence[str],
    limit: int,
    before: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    vocabulary: int | None = None,
) -> list[WordPrompt]:
    """Prompts of a causal model, and the tokens of " " + word after each.

    Args:
        words: of each label, in class order.
        limit: tokens of the window. A word's last token is predicted and not read, so it takes no room.

    The others are those of `prompts.tokenize`. A prompt is encoded alone, and with each word after it: the word's
    tokens are those beyond the number that the prompt has alone. Spaces at the prompt's end go to the word. Raises
    InputError as `tokenize` does, and for a word that has no tokens.
    """
    told = f"template {template!r}{'' if before is None else ' with its demonstrations'}"
    prompts = rendered(tokenizer, template, rows, before=before)
    alone = encoded(tokenizer, [text.rstrip() for text, _ in prompts], closing=False)
    after: list[list[list[int]]] = [[] for _ in prompts]
    for word in words:
        both = encoded(tokenizer, [f"{text} {word}" for text, _ in prompts], closing=False)
        for own, (ids, _), (whole, _) in zip(after, alone, both, strict=True):
            own.append(whole[len(ids) :])
    found = []
    for number, ((text, spans), (uncut, offsets)) in enumerate(zip(prompts, alone, strict=True)):
        name = f"row {number + 1}" if names is None else names[number]
        for word, tokens in zip(words, after[number], strict=True):
            if not tokens:
                raise InputError(f"{name}: the word {word!r} has no tokens after the prompt; choose another word")
            check_known(tokenizer, tokens, vocabulary, name, f"{text} {word}")
        ids, cut = fitted(uncut, offsets, spans, limit - max(map(len, after[number])) + 1, told)
        check_known(tokenizer, ids, vocabulary, name, text)
        found.append(WordPrompt(ids, after[number], cut))
    return found
