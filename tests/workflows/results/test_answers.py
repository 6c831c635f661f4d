"""Which method wins, whether that is shown, at what cost: told from results that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.workflows.results.test_model import entry
from workflows.results.answers import answers, sentences
from workflows.results.model import Costs, Detail, Result, Versus
from workflows.results.table import table
from workflows.results.verdicts import comparisons, judged

REFERENCE = "probe"


def found(
    method: str, mean: float, seconds: float | None, p: float | None, against: float = 0.9
) -> tuple[Result, Detail]:
    """A method with p of its test against the best, which itself has none, and against the reference."""
    result, _ = entry(method=method, mean=mean)
    versus = None if method == REFERENCE else Versus(REFERENCE, 0.05, 0.01, 0.09, against)
    to_best = None if p is None else Versus("", mean - 0.8, mean - 0.85, mean - 0.75, p)
    return result, Detail(trained_weights=0, costs=Costs(seconds, 0.0, 0.0, 0.0), versus=versus, to_best=to_best)


def told(*results: tuple[Result, Detail]) -> str:
    (answer,) = answers(judged(results))
    return " ".join(sentences(answer))


def test_a_cheaper_method_that_is_not_shown_to_be_worse_is_named_with_its_seconds() -> None:
    assert told(
        found("zero", 0.2, 1.0, 0.0001),
        found("probe", 0.6, 2.0, 0.5, 0.9),
        found("knn", 0.5, 1.5, 0.3),
        found("lora", 0.8, 120.0, None),
    ) == (
        "lora has the highest accuracy: 0.800 in 120 s. "
        "Its lead over the next, probe (0.600 in 2.0 s), is not shown: +0.200 (+0.150 to +0.250, p 1.000). "
        "Its lead over the cheapest, zero (0.200 in 1.0 s), is shown: +0.600 (+0.550 to +0.650, p 0.001). "
        "The cheapest method not shown to be worse is knn: 0.500 in 1.5 s."
    )


def test_the_best_may_be_the_cheapest_and_the_next_may_be() -> None:
    assert told(found("a", 0.8, 1.0, None), found("probe", 0.5, 2.0, 0.5)).endswith("It is also the cheapest.")
    last = told(found("a", 0.8, 3.0, None, 0.001), found("probe", 0.5, 2.0, 0.001))
    assert "Its lead over the next and cheapest, probe (0.500 in 2.0 s), is shown" in last
    assert last.endswith("Every cheaper method is shown to be worse.")


def test_what_was_not_tested_or_has_no_seconds_is_not_claimed() -> None:
    assert told(found("a", 0.8, 3.0, None), found("probe", 0.5, 2.0, None)).endswith(
        "Its lead over the next, probe (0.500 in 2.0 s), was not tested."
    )
    assert told(found("a", 0.8, None, None), found("probe", 0.5, 2.0, 0.4)) == (
        "a has the highest accuracy: 0.800. "
        "Its lead over the next, probe (0.500 in 2.0 s), is not shown: +0.300 (+0.250 to +0.350, p 0.900)."
    )


def test_the_best_was_chosen_by_the_same_rows_so_p_counts_every_pair_it_could_have_been() -> None:
    lines = [
        found("best", 0.8, 1.0, None, 0.01),
        found("probe", 0.5, 1.0, 0.01),
        found("a", 0.5, 1.0, 0.02),
        found("b", 0.4, 1.0, 0.03),
    ]
    judgements = {result.method: detail for result, detail in judged(lines)}
    assert comparisons(judged(lines)) == 5  # three with the reference, two more with the best
    by_name = {name: detail.to_best for name, detail in judgements.items()}
    assert by_name["best"] is None
    probe, a, b = (by_name[name] for name in ("probe", "a", "b"))
    assert probe
    assert a
    assert b
    assert {one.reference for one in (probe, a, b)} == {"best"}
    versus = judgements["best"].versus
    assert versus
    assert probe.p_holm == versus.p_holm == pytest.approx(5 * 0.01)  # named before the run: no factor
    assert a.p_holm == pytest.approx(4 * 0.02 * 4 / 2)
    assert b.p_holm == pytest.approx(3 * 0.03 * 4 / 2)


def test_a_copy_of_the_best_is_not_shown_to_be_worse_and_is_no_further_candidate() -> None:
    result, detail = found("copy", 0.8, 0.5, 1.0, 0.01)
    assert detail.to_best
    same = replace(detail, copy=True, to_best=replace(detail.to_best, mean=0.0, low=0.0, high=0.0))
    first, others = found("best", 0.8, 1.0, None, 0.01), [found("probe", 0.5, 1.0, 0.01), found("a", 0.5, 1.0, 0.02)]
    lines = judged([first, *others, (result, same)])
    ((_, best), (_, _), (_, a), (_, copy)) = lines
    assert best.to_best is None
    assert copy.to_best
    assert a.to_best
    assert (copy.to_best.reference, copy.to_best.p_holm, copy.to_best.verdict) == ("best", 1.0, "no difference shown")
    # Six tests in all: of probe with best, copy and a; of the best with copy and a. Two of p 0.01 come before.
    assert a.to_best.p_holm == pytest.approx(3 * 0.02 * 3 / 2)
    (answer,) = answers(lines)
    assert answer.enough is not None
    assert answer.enough[0].method == "copy"


def test_tests_against_a_method_that_is_not_the_best_of_these_results_are_left_out() -> None:
    lines = judged([found("probe", 0.5, 1.0, 0.01), found("a", 0.4, 1.0, 0.02)])
    assert [detail.to_best for _, detail in lines] == [None, None]


def test_the_table_is_sorted_says_the_answer_and_explains_what_looks_contradictory() -> None:
    shown = table(
        judged([found("zero", 0.2, 1.0, 0.0001), found("probe", 0.6, 2.0, 0.5), found("lora", 0.8, 9.0, None)])
    )
    head, *rows = shown.splitlines()[1:5]
    assert head.split()[:3] == ["method", "score", "seconds"]
    assert [row.split()[:3] for row in rows] == [
        ["lora", "0.800", "9.0"],
        ["probe", "0.600", "~"],
        ["zero", "0.200", "1.0"],
    ]
    assert "\n  The cheapest method not shown to be worse is probe: 0.600 in 2.0 s.\n" in shown
    assert "p after Holm over 3 comparisons" in shown
    assert 'An interval without 0 next to "no difference shown"' in shown
