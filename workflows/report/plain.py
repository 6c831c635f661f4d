"""The report's tables as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from workflows.report.contents import Average, Block, Contents
from workflows.report.page import remarks, sign, title
from workflows.results.answers import level
from workflows.results.columns import CACHED, COLUMNS, SECONDS
from workflows.results.model import Detail
from workflows.results.wording import CONTRADICTORY, LEVEL, probability, score

_TEX_SIGNS = {"better": r"$\blacktriangle$", "worse": r"$\blacktriangledown$", "no difference shown": r"$\circ$"}
_TEX_LEVEL = r"$\sim$"
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def markdown(contents: Contents) -> str:
    """Headline, scores with verdicts, learning curves where sizes differ, every comparison, costs."""
    parts = [f"# {title(contents)}", *contents.headline(), f"Run `{contents.run_id}`. {_legend(contents)}"]
    for block in contents.blocks:
        parts += [f"## Model {block.model}", _markdown_table(_scores(block, _cell, _signs))]
    if curves := [_markdown_table(rows) for block in contents.blocks for rows in _curves(contents, block)]:
        parts += ["## Scores by training rows per class", *curves]
    if contents.reference:
        parts += ["## Every comparison", _markdown_table(_comparisons(contents))]
        parts += [CONTRADICTORY] if contents.contradictory else []
    parts.append("## Cost of one answer (seconds), and calibration error, mean over tasks")
    for block in contents.blocks:
        rows = [["method", *(column.heading for column in COLUMNS)]]
        rows += [[method, *(column.cell(block.of(method)) for column in COLUMNS)] for method in block.methods]
        parts.append(f"Model {block.model}\n\n" + _markdown_table(rows))
    parts += ["## To reproduce it", f"`vocabsem run` on this file:\n\n```yaml\n{contents.workflow.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def latex(contents: Contents) -> str:
    """A table a model for `\\input`; needs the packages booktabs and amssymb."""
    parts = [f"% run {contents.run_id}, made by vocabsem report; needs \\usepackage{{booktabs,amssymb}}"]
    for block in contents.blocks:
        head, *rows = _scores(block, _tex_cell, _tex_signs)
        lines = [" & ".join(map(escaped, head)), *(_tex_row(*row) for row in rows)]
        parts += [
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escaped(f'Model {block.model}, {block.metrics}. {_legend(contents)}')}}}",
            f"  \\begin{{tabular}}{{l{'r' * (len(head) - 2)}l}}",
            r"    \toprule",
            f"    {lines[0]} \\\\",
            r"    \midrule",
            *(f"    {line} \\\\" for line in lines[1:]),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def escaped(words: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(letter, letter) for letter in words)


def _legend(contents: Contents) -> str:
    told = f"Means over seeds; in brackets 95 % bootstrap intervals over test rows ({contents.test_rows})."
    if not contents.reference:
        return told
    return (
        f"{told} Against {contents.reference}: triangle up better, triangle down worse, circle no difference shown ("
        f"paired randomisation test, p after Holm over {contents.tested} comparisons, level 0.05). {LEVEL} not shown "
        "to be worse than the best method of the task, by the same test. Seconds: with nothing cached."
    )


def _scores(
    block: Block, cell: Callable[[float, float, float, str], str], signs: Callable[[Detail], str]
) -> list[list[str]]:
    """Head and rows: the mean over tasks and the seconds, a column a task, remarks. Seconds are beside the score."""
    several = len(block.tasks) > 1
    head = ["mean", SECONDS.heading, *block.tasks] if several else [*block.tasks, SECONDS.heading]
    rows = [["method", *head, "remarks"]]
    for method in block.methods:
        found = [block.found.get((method, task)) for task in block.tasks]
        cells = [cell(one[0].mean, one[0].low, one[0].high, signs(one[1])) if one else "none" for one in found]
        average = block.average(method)
        mean = cell(average.mean, average.low, average.high, "") if average else "none"
        spent = SECONDS.cell(block.of(method))
        rows.append([method, *([mean, spent, *cells] if several else [*cells, spent]), remarks(block, method)])
    return rows


def _curves(contents: Contents, block: Block) -> Iterator[list[list[str]]]:
    """Where there are several training sizes, head and rows, a column a size: means, costs, leads, each task."""
    blocks = contents.at_sizes(block.model)
    if len(blocks) < 2:
        return

    def rows(title: str, cell: Callable[[Block, str], str]) -> list[list[str]]:
        head = [f"{title}, {block.model}", *map(str, blocks)]
        return [head, *([method, *(cell(one, method) for one in blocks.values())] for method in block.methods)]

    if len(block.tasks) > 1:
        yield rows("mean over tasks", lambda one, method: _spanned(one.average(method)))
    yield rows("seconds from stored states", lambda one, method: CACHED.cell(one.of(method)) if one.of(method) else "")
    if len(block.tasks) > 1 and contents.reference:
        told = f"lead over {contents.reference}, mean over tasks"
        yield rows(told, lambda one, method: _spanned(one.average_lead(method), "+"))
    for task in block.tasks:
        yield rows(task, partial(_scored, task))


def _spanned(average: Average | None, sign: str = "") -> str:
    """A mean over tasks with its interval; nothing where a task is missing."""
    if average is None:
        return ""
    return f"{average.mean:{sign}.3f} ({average.low:{sign}.3f} to {average.high:{sign}.3f})"


def _scored(task: str, block: Block, method: str) -> str:
    """A score with its interval and verdict; nothing where there is none."""
    if (method, task) not in block.found:
        return ""
    result, detail = block.found[method, task]
    return _cell(result.mean, result.low, result.high, sign(detail.versus))


def _cell(mean: float, low: float, high: float, mark: str) -> str:
    return f"{score(mean, low, high)} {mark}".rstrip()


def _tex_cell(mean: float, low: float, high: float, mark: str) -> str:
    return f"{mean:.3f} {{\\scriptsize ({low:.3f}--{high:.3f})}} {mark}".rstrip()


def _tex_row(method: str, *cells: str) -> str:
    """The scores between method and remarks are TeX already."""
    *scores, told = cells
    return " & ".join([escaped(method), *scores, escaped(told)])


def _signs(detail: Detail) -> str:
    """What the tests say: against the reference method, and against the best."""
    return f"{sign(detail.versus)} {LEVEL if level(detail) else ''}".strip()


def _tex_signs(detail: Detail) -> str:
    versus = _TEX_SIGNS.get(detail.versus.verdict or "", "") if detail.versus is not None else ""
    return f"{versus} {_TEX_LEVEL if level(detail) else ''}".strip()


def _comparisons(contents: Contents) -> list[list[str]]:
    rows = [["model", "task", "method", "against", "difference", "95 % interval", "p", "p, corrected", "verdict"]]
    for result, versus in contents.pairs:
        span = f"{versus.low:+.3f} to {versus.high:+.3f}"
        ps = [probability(versus.p), probability(versus.p_holm)]
        names = [result.model, result.task, result.method, versus.reference]
        rows.append([*names, f"{versus.mean:+.3f}", span, *ps, versus.verdict or ""])
    return rows


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
