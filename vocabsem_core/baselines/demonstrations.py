"""Demonstrations: labelled training rows that stand before a prompt, for in-context learning.

The join is KNN-Prompting's (Xu et al. 2023): after each demonstration's label word a newline and a blank line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vocabsem_core.features.prompts import render, tokenize

JOIN = "\n\n"
MOST_CUT = 0.05  # the share of prompts that may lose text to demonstrations (KNN-Prompting's rule, and the paper's)
_NO_LIMIT = 10**9


def demonstration(template: str, row: Mapping[str, str], word: str) -> str:
    """A row as it stands before a prompt: its own prompt, the word of its label, and the join."""
    return f"{render(template, row)[0]} {word}{JOIN}"


def balanced(rows: Sequence[Sequence[int]], shots: int, seed: int) -> list[int]:
    """`shots` rows of each class, in one seeded order; with more shots the same rows are among them.

    Args:
        rows: the rows to choose from, class by class, in an order that says nothing of the file's.
    """
    import numpy as np

    chosen = [
        int(mine[place])
        for number, mine in enumerate(rows)
        for place in np.random.default_rng([seed, number, 1]).permutation(len(mine))[:shots]
    ]
    order = np.random.default_rng([seed, len(rows), shots, 2]).permutation(len(chosen))
    return [chosen[place] for place in order]


def token_counts(
    tokenizer: Any, template: str, rows: Sequence[Mapping[str, str]], before: Sequence[str] | None = None
) -> list[int]:
    """Tokens of each row's prompt as it would be encoded, uncut.

    Args:
        tokenizer: a fast tokenizer of transformers.
        template: of the prompt, with the rows' fields in braces.
        rows: the fields of each row.
        before: text before each prompt, such as demonstrations; None: nothing.
    """
    return [len(prompt.ids) for prompt in tokenize(tokenizer, template, rows, _NO_LIMIT, before=before)]


def shots_that_fit(
    tokenizer: Any,
    template: str,
    rows: Sequence[Mapping[str, str]],
    limit: int,
    before: Callable[[int], str],
    most: int,
    budget: int | None = None,
) -> tuple[int, int]:
    """The largest number of shots, `most` at most, with which at most `MOST_CUT` of the prompts are cut; 0 for none.

    Args:
        rows: whose prompts are counted.
        limit: tokens of the window.
        before: the demonstrations' text for a number of shots.
        budget: tokens that demonstrations may take in all; None: what the window leaves.

    Returns also the tokens that one more shot would take, or all `most`.
    """
    own = token_counts(tokenizer, template, rows)
    tokens = 0
    for shots in range(1, most + 1):
        tokens = token_counts(tokenizer, template, rows[:1], [before(shots)])[0] - own[0]
        too_many = budget is not None and tokens > budget
        if too_many or sum(count + tokens > limit for count in own) > MOST_CUT * len(own):
            return shots - 1, tokens
    return most, tokens


def that_fit(candidates: Sequence[int], costs: Sequence[int], room: int) -> list[int]:
    """Of candidates, best first, those that fit into `room` tokens one after another; the best comes last.

    A candidate that is too long is passed over: shorter ones after it may fit.
    """
    taken: list[int] = []
    for one in candidates:
        if costs[one] <= room:
            taken.append(one)
            room -= costs[one]
    return taken[::-1]
