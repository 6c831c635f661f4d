"""What is said of a method that had another budget than most."""

from __future__ import annotations

from typing import Any

import pytest

from workflows.results.budgets import budget_note, usual_budget
from workflows.results.model import Costs, Detail, Result


def found(seeds: int, budget: int | None, trials: int | None = None, **more: Any) -> tuple[Result, Detail]:
    result = Result("m", "t", "x", "accuracy", 0.5, 0.4, 0.6, 0.0, list(range(seeds)), 10)
    return result, Detail(trained_weights=1, costs=Costs(), trials=trials, budget=budget, **more)


def test_the_usual_budget_is_that_of_most_methods() -> None:
    assert usual_budget([found(3, 8), found(3, None), found(1, 8), found(3, 0)]) == (3, 8)
    assert usual_budget([found(3, 8), found(1, 4)]) == (3, 8)
    assert usual_budget([found(1, None)]) == (1, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (found(3, 8, 8), ""),
        (found(3, 8, 5), ""),  # its whole space
        (found(3, None), ""),
        (found(1, 0), "1 seed, defaults"),
        (found(3, 1, 1), "defaults"),
        (found(2, 4, 4), "2 seeds, 4 trials"),
        (found(3, 8, 8, folds=5), "5 folds"),
        (found(1, 8, 8, trial_rows=1000), "1 seed, trials on 1,000 rows"),
    ],
)
def test_another_budget_is_said(given: tuple[Result, Detail], expected: str) -> None:
    assert budget_note(*given, (3, 8)) == expected
