"""Results as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from workflows.results.answers import answers, level, sentences
from workflows.results.budgets import budget_note, usual_budget
from workflows.results.columns import Column, table_columns
from workflows.results.model import Found, largest
from workflows.results.verdicts import comparisons, grouped, ranked
from workflows.results.wording import CONTRADICTORY, LEVEL, looks_contradictory, verdict


def table(results: Sequence[Found], more: Sequence[Column] = ()) -> str:
    """One block a model and task, and below them what the columns mean. Smaller training sizes are the report's.

    `more`: columns beside the usual ones; one that is among these is not shown again.
    """
    size = largest(results)
    shown = [(result, detail) for result, detail in results if result.train_size == size]
    usual, columns = usual_budget(shown), list(dict.fromkeys([*table_columns(shown), *more]))
    told = {(answer.best[0].model, answer.best[0].task): sentences(answer) for answer in answers(shown)}
    lines = []
    for group in grouped(shown).values():
        block = ranked(group)
        first = block[0][0]
        rows = "" if size == "full" else f", trained on {size} rows per class"
        lines += ["", f"{first.task}   ({first.metric}, {first.n_test} {first.rows} rows, model {first.model}{rows})"]
        compared = next((detail.versus.reference for _, detail in block if detail.versus), None)
        head = ["method", *(column.heading for column in columns), "" if compared is None else f"against {compared}"]
        cells = [head, *([f[0].method, *(column.cell([f]) for column in columns), _notes(f, usual)] for f in block)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for name, *numbers, last in cells:
            fields = [f"{text:>{width}}" for text, width in zip(numbers, widths[1:-1], strict=True)]
            lines.append("  " + "  ".join([f"{name:{widths[0]}}", *fields, last]).rstrip())
        lines += [f"  {sentence}" for sentence in told.get((first.model, first.task), ())]
    return "\n".join([*lines[1:], *_legend(results, shown)])


def _notes(found: Found, usual: tuple[int, int]) -> str:
    result, detail = found
    notes = [
        *([verdict(detail.versus)] if detail.versus else []),
        *([f"[{note}]"] if (note := budget_note(result, detail, usual)) else []),
        *(["[one class predicted throughout]"] if detail.constant_prediction else []),
    ]
    return " ".join(notes)


def _legend(results: Sequence[Found], shown: Sequence[Found]) -> list[str]:
    reference = next((detail.versus.reference for _, detail in shown if detail.versus), None)
    if reference is None:
        return []
    lines = [
        "",
        "seconds: encoding, basis, search and one fit, with nothing cached; cached: search and fit only.",
        f"against {reference}: paired randomisation test on the test rows; in brackets the 95 % interval of the "
        f"difference, and p after Holm over {comparisons(shown)} comparisons, those with the best method included.",
    ]
    if any(level(detail) for _, detail in shown):
        lines.append(f"{LEVEL} not shown to be worse than the best method, by the same test.")
    if any(looks_contradictory(one) for _, detail in shown for one in (detail.versus, detail.to_best) if one):
        lines.append(CONTRADICTORY)
    if len(results) > len(shown):
        lines.append("Smaller training sizes: see the learning curve of `vocabsem report latest`.")
    return lines
