"""Verdicts: what the paired tests of a run say together, against the reference method and against the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from workflows.results.model import LEVEL, Detail, Found, Result, Verdict, Versus, by_place


def ranked(found: Iterable[Found]) -> list[Found]:
    """The highest score first; of equal scores the one that the others were tested against."""
    return sorted(found, key=lambda one: (-round(one[0].mean, 12), one[1].to_best is not None))


def judged(results: Sequence[Found]) -> list[Found]:
    """Results with p corrected over all comparisons at their training size, and the verdicts."""
    sizes = dict.fromkeys(result.train_size for result, _ in results)
    found = by_place(
        one for size in sizes for one in _judged_together([one for one in results if one[0].train_size == size])
    )
    return [found[result.place] for result, _ in results]


def _judged_together(results: Sequence[Found]) -> list[Found]:
    """The same of results at one training size: the table of a run, or a point of its learning curves.

    The comparisons are those with the reference method, which was named before the run, and those with the best method,
    which the test rows themselves have chosen. Whichever of k distinct methods is best, k - 1 pairs are shown, out of
    k (k - 1) / 2 that could have been. So p of a comparison with the best is first multiplied by k / 2; then Holm's
    correction is made over all that are shown. The pair of the reference and the best is one comparison, and was named
    before the run.
    """
    from vocabsem_core.statistics.holm import holm

    groups = grouped(results)
    best = {group: _best(found) for group, found in groups.items()}
    named = [_named(result, detail, best[_group(result)]) for result, detail in results]
    p_of = {_pair(result, one): one.p for result, detail in named if (one := detail.versus)}
    for result, detail in named:
        if one := detail.to_best:
            distinct = sum(not of.copy for _, of in groups[_group(result)])
            p_of.setdefault(_pair(result, one), min(1.0, one.p * distinct / 2))
    adjusted = dict(zip(p_of, holm(list(p_of.values())), strict=True))

    def verdict(result: Result, one: Versus | None) -> Versus | None:
        return None if one is None else _judged(one, adjusted[_pair(result, one)])

    return [
        (result, replace(detail, versus=verdict(result, detail.versus), to_best=verdict(result, detail.to_best)))
        for result, detail in named
    ]


def comparisons(results: Iterable[Found]) -> int:
    """How many pairs of methods were tested."""
    return len({_pair(result, one) for result, detail in results for one in (detail.versus, detail.to_best) if one})


def grouped(results: Iterable[Found]) -> dict[tuple[Any, ...], list[Found]]:
    """Results of one model, task and training size together, in their order."""
    groups: dict[tuple[Any, ...], list[Found]] = {}
    for found in results:
        groups.setdefault(_group(found[0]), []).append(found)
    return groups


def _group(result: Result) -> tuple[Any, ...]:
    return result.model, result.task, result.train_size


def _pair(result: Result, versus: Versus) -> tuple[Any, ...]:
    return *_group(result), frozenset((result.method, versus.reference))


def _best(found: Sequence[Found]) -> str | None:
    """The method the others were tested against, by its name of now; None where that is not the best of these results.

    Results of an earlier time of the run, of which one is missing now, may be such.
    """
    result, detail = ranked(found)[0]
    return result.method if detail.to_best is None else None


def _named(result: Result, detail: Detail, best: str | None) -> Found:
    if detail.to_best is None or best is None:
        return result, replace(detail, to_best=None)
    return result, replace(detail, to_best=replace(detail.to_best, reference=best))


def _judged(versus: Versus, p: float) -> Versus:
    verdict: Verdict = "no difference shown" if p >= LEVEL else "better" if versus.mean > 0 else "worse"
    return replace(versus, p_holm=p, verdict=verdict)
