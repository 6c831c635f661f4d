"""Prompts and label words: templates, tokenisation, truncation, and the tokens that stand for a label."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from vocabsem_core.errors import InputError
from vocabsem_core.names import WHOLE, LabelTokens

MASK = "mask"  # the field of a template that stands for the mask token
Span = tuple[int, int]  # character places: where something begins and ends
_NO_LIMIT = 10**9  # tokenizers without a limit state a huge number


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt.

    Attributes:
        ids: token ids, special tokens included.
        cut: text tokens removed so that the prompt fits the window.
        position: the token whose state stands for the prompt: the last one, or of a masked model the mask.
    """

    ids: list[int]
    cut: int
    position: int


def window_of(model: Any, tokenizer: Any) -> int | None:
    """The longest prompt in tokens: the smaller of what the model's position embedding takes and the tokenizer states.

    None where neither has a limit.
    """
    from vocabsem_core.features.architectures import window

    stated = [window(model), tokenizer.model_max_length]
    return min((limit for limit in stated if limit is not None and limit < _NO_LIMIT), default=None)


def template_fields(template: str) -> list[str]:
    """The names in braces. Raises InputError where there is none, or the braces do not match."""
    try:
        parsed = [(field, spec, how) for _, field, spec, how in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise InputError(f"template {template!r}: {error}; write a field as {{text}}") from error
    if not parsed or not all(field for field, _, _ in parsed):
        raise InputError(f"template {template!r} has no named field; expected at least one, such as {{text}}")
    if any(spec or how for _, spec, how in parsed):
        raise InputError(f"template {template!r} formats a field; expected plain names, such as {{text}}")
    return [field for field, _, _ in parsed]


def render(template: str, row: Mapping[str, str]) -> tuple[str, list[Span]]:
    """The prompt's text, and where in it each field's value begins and ends (character places)."""
    text, spans = "", []
    for literal, field, _, _ in string.Formatter().parse(template):
        text += literal
        if field is not None:
            if field != MASK:
                spans.append((len(text), len(text) + len(row[field])))
            text += row[field]
    return text, spans


def tokenize(
    tokenizer: Any,
    template: str,
    rows: Sequence[Mapping[str, str]],
    limit: int,
    closing: bool = False,
    before: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    vocabulary: int | None = None,
) -> list[Prompt]:
    """Tokenised prompts of at most `limit` tokens.

    Args:
        rows: the values of the template's fields.
        closing: whether special tokens that the tokenizer puts at the end stay.
        before: a text for each row that stands before its prompt.
        names: what errors call each row; None: row 1, row 2, and so on.
        vocabulary: how many tokens the model has; None: they are not checked.

    With `closing`, special tokens that the tokenizer puts at the end stay; a causal model would otherwise be asked what
    follows the end. A prompt that is too long loses text tokens from the left of its longest field; the template, the
    special tokens and the text `before` each prompt stay. Raises InputError where these alone do not fit, for a special
    token that template and tokenizer both add, and for the first row with a second mask or a token the model lacks.
    """
    masked = MASK in template_fields(template)
    prompts = rendered(tokenizer, template, rows, closing, before)
    told = f"template {template!r}{'' if before is None else ' with its demonstrations'}"
    found = []
    for number, (uncut, offsets) in enumerate(encoded(tokenizer, [text for text, _ in prompts], closing or masked)):
        name, (text, spans) = f"row {number + 1}" if names is None else names[number], prompts[number]
        ids, cut = fitted(uncut, offsets, spans, limit, told)
        check_known(tokenizer, ids, vocabulary, name, text)
        found.append(Prompt(ids, cut, _position(ids, tokenizer if masked else None, name, text)))
    return found


def rendered(
    tokenizer: Any,
    template: str,
    rows: Sequence[Mapping[str, str]],
    closing: bool = False,
    before: Sequence[str] | None = None,
) -> list[tuple[str, list[Span]]]:
    """Each row's text as `tokenize` takes it, and where in it values of fields are. Raises InputError as it does."""
    masked = MASK in template_fields(template)
    if masked and tokenizer.mask_token is None:
        raise InputError(f"template {template!r}: {type(tokenizer).__name__} has no mask token; use a causal template")
    mask = {MASK: tokenizer.mask_token} if masked else {}
    _check_add_no_token_again(tokenizer, template, closing or masked)
    prompts = [render(template, {**row, **mask}) for row in rows]
    if before is None:
        return prompts
    return [_after(ahead, *prompt) for ahead, prompt in zip(before, prompts, strict=True)]


def encoded(tokenizer: Any, texts: Sequence[str], closing: bool) -> list[tuple[list[int], list[Span]]]:
    """Tokens of each text, uncut, and their places in it; without `closing`, special tokens at the end are left out."""
    # Not verbose: what is longer than the model's window is cut later.
    both = tokenizer(list(texts), return_offsets_mapping=True, add_special_tokens=True, verbose=False)
    found = list(zip(both["input_ids"], both["offset_mapping"], strict=True))
    for ids, offsets in found if not closing else ():
        while len(ids) > 1 and ids[-1] in tokenizer.all_special_ids and tuple(offsets[-1]) == (0, 0):
            ids.pop(), offsets.pop()
    return found


def check_known(tokenizer: Any, ids: Sequence[int], vocabulary: int | None, name: str, text: str) -> None:
    """Raises InputError, naming the row, for a token that a model of `vocabulary` tokens lacks."""
    if vocabulary is not None and (largest := max(ids, default=0)) >= vocabulary:
        told = _unknown(tokenizer, largest, vocabulary)
        raise InputError(f"{name}: {told}, or take it out of the text: {text!r}")


def _check_add_no_token_again(tokenizer: Any, template: str, closing: bool) -> None:
    """Raises InputError where the template begins or ends with a special token that the tokenizer adds there itself."""
    parts = [(literal, field) for literal, field, _, _ in string.Formatter().parse(template)]
    first, last = parts[0][0], parts[-1][0] if closing and parts[-1][1] is None else ""
    for literal, verb, own, pair in ((first, "begins", 0, slice(0, 2)), (last, "ends", -1, slice(-2, None))):
        plain = tokenizer(literal, add_special_tokens=False)["input_ids"]
        if (
            plain
            and tokenizer(literal)["input_ids"][pair] == [plain[own]] * 2
            and plain[own] in tokenizer.all_special_ids
        ):
            token = tokenizer.convert_ids_to_tokens(plain[own])
            raise InputError(
                f"template {template!r} {verb} with {token}, which the tokenizer adds itself; take it out of the "
                "template"
            )


def _unknown(tokenizer: Any, token: int, vocabulary: int) -> str:
    """What is wrong with a token that the model lacks."""
    return (
        f"token {tokenizer.convert_ids_to_tokens(token)!r} has id {token}, the model has {vocabulary} tokens: it was "
        "added to the tokenizer and not to the model. Save the model again after "
        "`model.resize_token_embeddings(len(tokenizer))`"
    )


def _after(ahead: str, text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    return ahead + text, [(start + len(ahead), end + len(ahead)) for start, end in spans]


def fitted(
    ids: list[int], offsets: Sequence[Span], spans: Sequence[Span], limit: int, told: str
) -> tuple[list[int], int]:
    """Tokens cut to `limit`, from the left of the longest field of `spans`, and how many were cut.

    Raises InputError, about what is `told`, where all that can be cut is not enough.
    """
    excess = len(ids) - limit
    if excess <= 0:
        return ids, 0
    # A token belongs to a field when it lies inside it; one that straddles the border is kept with the template. Some
    # tokenizers trim spaces from offsets, so that a token of spaces has an empty place.
    fields = [
        [i for i, (a, b) in enumerate(offsets) if start <= a < b <= end or start < a == b <= end]
        for start, end in spans
    ]
    dropped: set[int] = set()
    for _ in range(excess):
        longest = max(fields, key=len)
        if not longest:
            raise InputError(
                f"{told} alone takes {len(ids) - len(dropped)} tokens, the window holds {limit}; "
                "shorten the template or raise max_tokens"
            )
        dropped.add(longest.pop(0))
    return [token for i, token in enumerate(ids) if i not in dropped], excess


def _position(ids: list[int], masking: Any, name: str, text: str) -> int:
    """The last place, or that of the mask where there is a tokenizer `masking` the label."""
    if masking is None:
        return len(ids) - 1
    if (count := ids.count(masking.mask_token_id)) != 1:
        raise InputError(
            f"{name}: the prompt holds {count} mask tokens, expected one; take {masking.mask_token} out of the text: "
            f"{text!r}"
        )
    return ids.index(masking.mask_token_id)


@dataclass(frozen=True)
class Verbalizer:
    """The tokens that stand for each label.

    Attributes:
        labels: the label names, in class order.
        tokens: for each label, the vocabulary rows used for it: one, several to be averaged, or of a whole word all.
        rule: "first", "last", "mean" or "whole".
    """

    labels: list[str]
    tokens: list[list[int]]
    rule: str


def verbalize(
    tokenizer: Any, template: str, words: Mapping[str, str], rule: LabelTokens = "auto", vocabulary: int | None = None
) -> Verbalizer:
    """Label words to vocabulary rows: the tokens of prompt + " " + word beyond the prompt's own (our choice).

    Args:
        tokenizer: a fast tokenizer of transformers.
        template: of the prompt, with fields in braces.
        words: label -> word.
        rule: which tokens of a word count. `auto`: the first where all differ and none is a mere space, else the mean.
            `whole`: all, in their order.
        vocabulary: how many tokens the model has; None: not checked.

    Raises InputError for a word without tokens or with one that the model lacks, and for labels with the same tokens.
    """
    before_mask = template.split(f"{{{MASK}}}")[0].rstrip()
    prompt, _ = render(before_mask, dict.fromkeys(template_fields(template), "text"))
    all_tokens = {label: _tokens_after(tokenizer, prompt, word.strip()) for label, word in words.items()}
    for label, tokens in all_tokens.items():
        if not tokens or not words[label].strip():
            raise InputError(
                f"label {label!r}: the word {words[label]!r} has no tokens after the prompt; choose another word"
            )
    if rule == "auto":
        firsts = {tokens[0] for tokens in all_tokens.values()}
        telling = len(firsts) == len(all_tokens) and all(tokenizer.decode([first]).strip() for first in firsts)
        rule = "first" if telling else "mean"
    for label, tokens in all_tokens.items():
        if vocabulary is not None and max(tokens[_PICKED[rule]]) >= vocabulary:
            told = _unknown(tokenizer, max(tokens), vocabulary)
            raise InputError(f"label {label!r}, word {words[label]!r}: {told}, or choose another word.")
    if alike := _alike(all_tokens, rule):
        told = ", ".join(
            f"{one!r} and {other!r} have the same tokens {all_tokens[one][_PICKED[rule]]}" for one, other in alike
        )
        raise InputError(f"labels {told} (label_tokens: {rule}); {_advice(all_tokens)}")
    return Verbalizer(list(words), [tokens[_PICKED[rule]] for tokens in all_tokens.values()], rule)


_PICKED = {"first": slice(0, 1), "last": slice(-1, None), "mean": slice(None), WHOLE: slice(None)}
_BY_WHOLE = f"`label_tokens: {WHOLE}`"


def _alike(tokens: Mapping[str, list[int]], rule: str) -> list[tuple[str, str]]:
    """Pairs of labels that a rule cannot tell apart: a mean knows how often a token comes, not where."""
    seen: dict[Hashable, str] = {}
    alike = []
    for label, own in tokens.items():
        picked = own[_PICKED[rule]]
        shares = frozenset((token, Fraction(count, len(picked))) for token, count in Counter(picked).items())
        if (other := seen.setdefault(tuple(picked) if rule == WHOLE else shares, label)) != label:
            alike.append((other, label))
    return alike


def _advice(tokens: Mapping[str, list[int]]) -> str:
    telling = [f"`label_tokens: {rule}`" for rule in _PICKED if not _alike(tokens, rule)]
    if not telling:
        return "give them other words: no label_tokens rule can tell all labels apart"
    told = f"{' and '.join(one for one in telling if one != _BY_WHOLE) or _BY_WHOLE} can tell all labels apart"
    whole = f"{_BY_WHOLE} is for zero-shot and icl under causal models"
    return f"{told}: set it in the task, or give them other words ({whole})"


def _tokens_after(tokenizer: Any, prompt: str, word: str) -> list[int]:
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(f"{prompt} {word}", add_special_tokens=False)["input_ids"]
    shared = 0
    while shared < min(len(before), len(whole)) and before[shared] == whole[shared]:
        shared += 1
    return whole[shared:]
