"""Results as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from workflows.results import Detail, Result


def table(results: Sequence[tuple[Result, Detail]]) -> str:
    """The comparison as plain text, one block a model and task."""
    lines = []
    for (model, task), group in groupby(results, key=lambda pair: (pair[0].model, pair[0].task)):
        block = list(group)
        first = block[0][0]
        lines += ["", f"{task}   ({first.metric}, {first.n_test} {first.rows} rows, model {model})"]
        width = max(len(result.method) for result, _ in block)
        lines.append(f"  {'method':{width}}   score   95 % interval    sd over seeds   trained weights    fit seconds")
        for result, detail in block:
            spread = (
                f"{result.sd_seeds:.3f}"
                if result.sd_seeds is not None
                else "same for all"
                if len(result.seeds) > 1
                else "one seed"
            )
            flag = "   (one class predicted throughout)" if detail.constant_prediction else ""
            lines.append(
                f"  {result.method:{width}}   {result.mean:.3f}   {result.low:.3f} to {result.high:.3f}   "
                f"{spread:>13}   {detail.trained_weights:>15,}   {_seconds(detail.fit_seconds):>12}{flag}"
            )
    return "\n".join(lines[1:])


def _seconds(value: float | None) -> str:
    """An artifact of an older version may not say."""
    return "not recorded" if value is None else f"{value:.1f}"
