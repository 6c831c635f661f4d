"""The answer of a comparison: which method wins on a task, whether that is shown, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workflows.results.model import Detail, Found, largest
from workflows.results.verdicts import grouped, ranked
from workflows.results.wording import lead, seconds


@dataclass(frozen=True)
class Answer:
    """The best method of a model and task at the largest training size, and those to weigh against it.

    Attributes:
        best: the method with the highest score.
        second: the one with the next score.
        cheapest: the one with the fewest seconds, with nothing cached; None where seconds are not recorded.
        enough: the cheapest that is not shown to be worse than the best, which may be the best itself; None where
            seconds are not recorded or a test is missing.
    """

    best: Found
    second: Found
    cheapest: Found | None
    enough: Found | None


def answers(results: Sequence[Found]) -> list[Answer]:
    """One per model and task, where methods were compared by tests."""
    size = largest(results)
    groups = grouped(found for found in results if found[0].train_size == size)
    compared = [found for found in groups.values() if len(found) > 1 and any(one.versus for _, one in found)]
    return [_answer(ranked(found)) for found in compared]


def level(detail: Detail) -> bool:
    """Whether a method is tested against the best and not shown to be worse."""
    return detail.to_best is not None and detail.to_best.verdict != "worse"


def sentences(answer: Answer) -> list[str]:
    """The answer in words: the best, its leads, and the cheapest method that is not shown to be worse."""
    best, second, cheapest = answer.best, answer.second, answer.cheapest
    result, _ = best
    told = [f"{result.method} has the highest {result.metric.replace('_', '-')}: {_figures(best)}."]
    if second[1].to_best is None:
        return [*told, f"Its lead over the next, {_cited(second)}, was not tested."]
    if cheapest is second:
        told.append(_lead_over("the next and cheapest", second))
    else:
        told.append(_lead_over("the next", second))
        if cheapest is best:
            told.append("It is also the cheapest.")
        elif cheapest is not None:
            told.append(_lead_over("the cheapest", cheapest))
    return [*told, *_cheapest_level(answer)]


def _answer(found: Sequence[Found]) -> Answer:
    best, second, *_ = found
    recorded = all(detail.costs.total is not None for _, detail in found)
    by_cost = sorted(found, key=lambda one: one[1].costs.total or 0.0) if recorded else []
    known = all(one is best or one[1].to_best is not None for one in found)
    enough = [one for one in by_cost if one is best or level(one[1])] if known else []
    return Answer(best, second, by_cost[0] if by_cost else None, enough[0] if enough else None)


def _lead_over(which: str, found: Found) -> str:
    versus = found[1].to_best
    if versus is None:
        return f"Its lead over {which}, {_cited(found)}, was not tested."
    shown = "is shown" if versus.verdict == "worse" else "is not shown"
    return f"Its lead over {which}, {_cited(found)}, {shown}: {lead(versus)}."


def _cheapest_level(answer: Answer) -> list[str]:
    """Nothing where the best is the cheapest, or it is not known."""
    if answer.enough is None or answer.cheapest is answer.best:
        return []
    if answer.enough is answer.best:
        return ["Every cheaper method is shown to be worse."]
    return [f"The cheapest method not shown to be worse is {answer.enough[0].method}: {_figures(answer.enough)}."]


def _cited(found: Found) -> str:
    return f"{found[0].method} ({_figures(found)})"


def _figures(found: Found) -> str:
    total = found[1].costs.total
    return f"{found[0].mean:.3f}" + (f" in {seconds(total)} s" if total is not None else "")
