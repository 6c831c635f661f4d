"""Results as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from workflows.budgets import budget_note, usual_budget
from workflows.results import Detail, Result, Versus, largest


def table(results: Sequence[tuple[Result, Detail]]) -> str:
    """One block a model and task, and below them what the columns mean. Smaller training sizes are the report's."""
    size = largest(results)
    shown = [(result, detail) for result, detail in results if result.train_size == size]
    usual = usual_budget(shown)
    whole = any(detail.costs.total is not None for _, detail in shown)
    costs = ("seconds", "cached") if whole else ("fit seconds",)
    head = ("method", "score", "95 % interval", "sd seeds", "weights", *costs)
    lines = []
    for (model, task), group in groupby(shown, key=lambda pair: (pair[0].model, pair[0].task)):
        block = list(group)
        first = block[0][0]
        rows = "" if size == "full" else f", trained on {size} rows a class"
        lines += ["", f"{task}   ({first.metric}, {first.n_test} {first.rows} rows, model {model}{rows})"]
        compared = next((detail.versus.reference for _, detail in block if detail.versus), None)
        cells = [(*head, "" if compared is None else f"against {compared}")]
        cells += [_row(result, detail, usual, whole) for result, detail in block]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for name, *numbers, last in cells:
            fields = [f"{text:>{width}}" for text, width in zip(numbers, widths[1:-1], strict=True)]
            lines.append("  " + "  ".join([f"{name:{widths[0]}}", *fields, last]).rstrip())
    return "\n".join([*lines[1:], *_legend(results, shown)])


def _row(result: Result, detail: Detail, usual: tuple[int, int], whole: bool) -> tuple[str, ...]:
    same = "same" if len(result.seeds) > 1 else "one seed"
    costs = (detail.costs.total, detail.costs.marginal) if whole else (detail.costs.fit,)
    notes = [
        *([verdict(detail.versus)] if detail.versus else []),
        *([f"[{note}]"] if (note := budget_note(result, detail, usual)) else []),
        *(["[one class predicted throughout]"] if detail.constant_prediction else []),
    ]
    return (
        result.method,
        f"{result.mean:.3f}",
        f"{result.low:.3f} to {result.high:.3f}",
        same if result.sd_seeds is None else f"{result.sd_seeds:.3f}",
        f"{detail.trained_weights:,}",
        *map(seconds, costs),
        " ".join(notes),
    )


def verdict(versus: Versus) -> str:
    """A verdict in words, with the interval of the difference and p."""
    span = f"{versus.low:+.3f} to {versus.high:+.3f}"
    p = f"p {probability(versus.p_holm)}"
    if versus.verdict == "no difference shown":
        return f"no difference shown ({span}, {p})"
    return f"{versus.verdict} by {abs(versus.mean):.3f} ({span}, {p})"


def probability(p: float | None) -> str:
    """Three digits, or that it is below what they show."""
    return "not judged" if p is None else f"{p:.3f}" if p >= 0.001 else "<0.001"


def seconds(value: float | None) -> str:
    """An artifact of an older version may not say."""
    return "not recorded" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _legend(results: Sequence[tuple[Result, Detail]], shown: Sequence[tuple[Result, Detail]]) -> list[str]:
    compared = [detail.versus for _, detail in shown if detail.versus]
    if not compared:
        return []
    lines = [
        "",
        "seconds: encoding, basis, search and one fit, with nothing cached; cached: search and fit alone.",
        f"against {compared[0].reference}: paired randomisation test on the test rows, p after Holm over "
        f"{len(compared)} comparisons; in brackets the 95 % interval of the difference.",
    ]
    if len(results) > len(shown):
        lines.append("Smaller training sizes: see the learning curve of `vocabsem report latest`.")
    return lines
