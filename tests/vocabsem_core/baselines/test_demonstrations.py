"""What stands before a prompt: its text, a balanced draw, and how many fit."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from vocabsem_core.baselines.demonstrations import JOIN, balanced, demonstration, shots_that_fit, that_fit, token_counts
from vocabsem_core.errors import InputError
from vocabsem_core.features.prompts import tokenize

TOKENIZER = tiny.tokenizer()
REVIEW = "review: {text}\n sentiment:"
ROWS = [{"text": f"a {'very ' * (i % 7)}dull film number {i}"} for i in range(60)]


def test_a_demonstration_ends_with_its_word_a_newline_and_a_blank_line() -> None:
    assert demonstration(REVIEW, {"text": "fine"}, "positive") == "review: fine\n sentiment: positive\n\n"


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=5), shots=st.integers(1, 5), seed=st.integers(0, 2**31 - 1)
)
def test_a_draw_is_balanced_seeded_and_part_of_a_larger_one(sizes: list[int], shots: int, seed: int) -> None:
    rows = [[100 * number + place for place in range(size)] for number, size in enumerate(sizes)]
    drawn = balanced(rows, shots, seed)
    assert Counter(row // 100 for row in drawn) == {number: min(shots, size) for number, size in enumerate(sizes)}
    assert len(set(drawn)) == len(drawn)
    assert drawn == balanced(rows, shots, seed)
    assert set(drawn) <= set(balanced(rows, shots + 1, seed))


def test_draws_of_several_seeds_differ_in_rows_and_order() -> None:
    rows = [list(range(20)), list(range(20, 40))]
    draws = [balanced(rows, 4, seed) for seed in range(8)]
    assert len({frozenset(drawn) for drawn in draws}) > 4
    assert any([row < 20 for row in drawn] != sorted(row < 20 for row in drawn) for drawn in draws)


@pytest.mark.parametrize("limit", [60, 100, 150, 250])
def test_the_largest_number_that_cuts_one_prompt_in_twenty_at_most(limit: int) -> None:
    def before(shots: int) -> str:
        return "".join(demonstration(REVIEW, row, "negative") for row in ROWS[:shots])

    found, _ = shots_that_fit(TOKENIZER, REVIEW, ROWS, limit, before, most=12)

    def cut(shots: int) -> int:
        prompts = [TOKENIZER(before(shots) + REVIEW.format(**row))["input_ids"] for row in ROWS]
        return sum(len(prompt) > limit for prompt in prompts)

    assert cut(found) <= 3  # of 60
    assert found == 12 or cut(found + 1) > 3
    assert 0 < found < 12 or limit == 60


def test_a_budget_limits_the_demonstrations_whatever_the_window_holds() -> None:
    def before(shots: int) -> str:
        return "".join(demonstration(REVIEW, row, "negative") for row in ROWS[:shots])

    bare = token_counts(TOKENIZER, REVIEW, ROWS[:1])[0]
    taken = [token_counts(TOKENIZER, REVIEW, ROWS[:1], [before(shots)])[0] - bare for shots in range(13)]
    assert shots_that_fit(TOKENIZER, REVIEW, ROWS, 9999, before, 12, budget=taken[5]) == (5, taken[6])
    assert shots_that_fit(TOKENIZER, REVIEW, ROWS, 9999, before, 12, budget=taken[6] - 1) == (5, taken[6])
    assert shots_that_fit(TOKENIZER, REVIEW, ROWS, 9999, before, 12) == (12, taken[12])


def test_what_does_not_fit_at_all_is_zero_shots_with_the_tokens_of_one() -> None:
    ahead = demonstration(REVIEW, {"text": "word " * 60}, "negative")
    taken = token_counts(TOKENIZER, REVIEW, ROWS[:1], [ahead])[0] - token_counts(TOKENIZER, REVIEW, ROWS[:1])[0]
    assert shots_that_fit(TOKENIZER, REVIEW, ROWS, 60, lambda _: ahead, most=4) == (0, taken)
    assert taken > 60


@given(costs=st.lists(st.integers(1, 30), min_size=1, max_size=8), room=st.integers(0, 80))
def test_what_fits_is_taken_best_first_and_stands_best_last(costs: list[int], room: int) -> None:
    taken = that_fit(range(len(costs)), costs, room)
    assert taken == sorted(taken, reverse=True)
    assert sum(costs[one] for one in taken) <= room
    for one in set(range(len(costs))) - set(taken):
        assert costs[one] + sum(costs[other] for other in taken if other < one) > room


@given(text=st.text(min_size=1, max_size=60), limit=st.integers(30, 90))
def test_demonstrations_are_never_cut(text: str, limit: int) -> None:
    ahead = demonstration(REVIEW, {"text": "fine"}, "positive")
    (prompt,) = tokenize(TOKENIZER, REVIEW, [{"text": text}], limit, before=[ahead])
    whole = TOKENIZER(ahead + REVIEW.format(text=text))["input_ids"]
    assert len(prompt.ids) == min(limit, len(whole))
    assert prompt.cut == len(whole) - len(prompt.ids)
    assert TOKENIZER.decode(prompt.ids).startswith(ahead.rstrip("\n"))
    assert TOKENIZER.decode(prompt.ids).endswith("\n sentiment:")


def test_demonstrations_longer_than_the_window_are_named() -> None:
    with pytest.raises(InputError, match="with its demonstrations alone takes"):
        tokenize(TOKENIZER, REVIEW, [{"text": "fine"}], 20, before=["word " * 40 + JOIN])
