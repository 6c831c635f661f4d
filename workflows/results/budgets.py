"""Seeds, trials and rows that a method was given, where the others were given more or less: a remark beside its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from workflows.results.model import Detail, Found, Result


def usual_budget(results: Sequence[Found]) -> tuple[int, int]:
    """Seeds and trials that most methods have, of equal counts the larger."""

    def most(values: Sequence[int]) -> int:
        counts = Counter(values)
        return max(counts, key=lambda value: (counts[value], value), default=0)

    budgets = [detail.budget for _, detail in results if detail.budget is not None]
    return most([len(result.seeds) for result, _ in results]), most(budgets)


def budget_note(result: Result, detail: Detail, usual: tuple[int, int]) -> str:
    """How a method's budget differs from the `usual` seeds and trials, on all its rows; "" where it does not."""
    seeds, trials, budget = len(result.seeds), detail.trials, detail.budget
    parts = [f"{seeds} seed{'s' if seeds > 1 else ''}"] if seeds < usual[0] else []
    if budget is not None and budget < usual[1]:
        parts.append("defaults" if not trials or trials < 2 else f"{trials} trials")
    if detail.trial_rows is not None:
        parts.append(f"trials on {detail.trial_rows:,} rows")
    if detail.folds > 1:
        parts.append(f"{detail.folds} folds")
    if detail.unlabelled_rows:
        parts.append(f"reads {detail.unlabelled_rows:,} rows without their labels")
    return ", ".join(parts)
