"""The report's tables as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workflows.report.contents import Block, Contents, by_size
from workflows.report.page import cost_of, remarks, sign, title
from workflows.results import Versus
from workflows.table import probability

_COSTS = (
    "encode",
    "basis",
    "search",
    "fit",
    "in all",
    "cached",
    "weights",
    "peak MB",
    "states MB",
    "fit MB",
    "trials",
    "seeds",
)
_TEX_SIGNS = {"better": r"$\blacktriangle$", "worse": r"$\blacktriangledown$", "no difference shown": r"$\circ$"}
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
        parts += [f"## Model {block.model}", _markdown_table(_scores(contents, block, _cell, sign))]
    if curves := [_markdown_table(rows) for block in contents.blocks for rows in _curves(contents, block)]:
        parts += ["## Scores by training rows a class", *curves]
    if contents.reference:
        parts += [f"## Every comparison with {contents.reference}", _markdown_table(_comparisons(contents))]
    parts.append("## Cost of one answer, mean over tasks (seconds)")
    for block in contents.blocks:
        rows = [["method", *_COSTS], *([method, *cost_of(block, method)] for method in block.methods)]
        parts.append(f"Model {block.model}\n\n" + _markdown_table(rows))
    parts += ["## To reproduce it", f"`vocabsem run` on this file:\n\n```yaml\n{contents.workflow.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def latex(contents: Contents) -> str:
    """A table a model for `\\input`; needs the packages booktabs and amssymb."""
    parts = [f"% run {contents.run_id}, made by vocabsem report; needs \\usepackage{{booktabs,amssymb}}"]
    for block in contents.blocks:
        head, *rows = _scores(contents, block, _tex_cell, _tex_sign)
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
        f"paired randomisation test, p after Holm over {len(contents.comparisons)} comparisons, level 0.05)."
    )


def _scores(contents: Contents, block: Block, cell: object, mark: object) -> list[list[str]]:
    """Head and rows: a column a task, their mean, remarks."""
    assert callable(cell)
    assert callable(mark)
    several = len(block.tasks) > 1
    rows = [["method", *block.tasks, *(["mean"] if several else []), "remarks"]]
    for method in block.methods:
        found = [block.found.get((method, task)) for task in block.tasks]
        cells = [cell(one[0].mean, one[0].low, one[0].high, mark(one[1].versus)) if one else "none" for one in found]
        average = block.average(method)
        mean = [cell(average.mean, average.low, average.high, "") if average else "none"] if several else []
        rows.append([method, *cells, *mean, remarks(block, method)])
    return rows


def _curves(contents: Contents, block: Block) -> Iterator[list[list[str]]]:
    """For each task tried with several training sizes head and rows: a column a size."""
    for task in block.tasks:
        mine = [result for result, _ in contents.results if (result.model, result.task) == (block.model, task)]
        sizes = by_size(result.train_size for result in mine)
        if len(sizes) > 1:
            cells = {(one.method, one.train_size): _cell(one.mean, one.low, one.high, "") for one in mine}
            rows = [[method, *(cells.get((method, size), "") for size in sizes)] for method in block.methods]
            yield [[f"{task}, {block.model}", *map(str, sizes)], *rows]


def _cell(mean: float, low: float, high: float, mark: str) -> str:
    return f"{mean:.3f} ({low:.3f} to {high:.3f}) {mark}".rstrip()


def _tex_cell(mean: float, low: float, high: float, mark: str) -> str:
    return f"{mean:.3f} {{\\scriptsize ({low:.3f}--{high:.3f})}} {mark}".rstrip()


def _tex_row(method: str, *cells: str) -> str:
    """The scores between method and remarks are TeX already."""
    *scores, told = cells
    return " & ".join([escaped(method), *scores, escaped(told)])


def _tex_sign(versus: Versus | None) -> str:
    return _TEX_SIGNS.get(versus.verdict or "", "") if versus is not None else ""


def _comparisons(contents: Contents) -> list[list[str]]:
    rows = [["model", "task", "method", "difference", "95 % interval", "p", "p, Holm", "verdict"]]
    for block in contents.blocks:
        for (method, task), (_, detail) in block.found.items():
            if (versus := detail.versus) is not None:
                span = f"{versus.low:+.3f} to {versus.high:+.3f}"
                ps = [probability(versus.p), probability(versus.p_holm)]
                rows.append([block.model, task, method, f"{versus.mean:+.3f}", span, *ps, versus.verdict or ""])
    return rows


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
