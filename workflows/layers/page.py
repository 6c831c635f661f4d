"""The report of a layer study: one HTML page that needs no network, its tables as Markdown, and its plots as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from workflows.layers.charts import scores_by_layer, trajectories
from workflows.layers.results import LayerResults, columns, layer_table, steering_table
from workflows.report.svg import STYLE, svg_file

PLOTS = "layers-*.svg"  # in the record of a run
_PAGE_STYLE = (
    "body { font: 15px/1.45 system-ui, sans-serif; color: #222; }"
    "body { margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem; }"
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }"
    "td, th { padding: 2px 8px; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }"
    "td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }"
    ".wide { overflow-x: auto; } .charts svg { width: 100%; max-width: 720px; height: auto; } "
    "dl { display: grid; grid-template-columns: max-content auto; gap: 0 1rem; } dd { margin: 0; }"
)


def plots(found: Sequence[LayerResults]) -> Iterator[tuple[str, str]]:
    """File names and SVG."""
    for one in found:
        where = f"{one.model}-{one.task}"
        for basis in one.bases:
            yield f"layers-{where}-{basis}.svg", svg_file(scores_by_layer(one, basis))
        if one.plane["layers"]:
            yield f"layers-{where}-ways.svg", svg_file(trajectories(one))


def page(found: Sequence[LayerResults]) -> str:
    """HTML."""
    title = f"Layers of {', '.join(dict.fromkeys(one.model for one in found))}"
    parts = [f"<h1>{escape(title)}</h1>"]
    for one in found:
        parts.append(f"<h2>{escape(one.task)}, {escape(one.model)}</h2>")
        parts.append(f"<p>{escape(one.metric.replace('_', '-'))} on {one.n_test:,} test rows, 95 % intervals.</p>")
        charts = [scores_by_layer(one, basis) for basis in one.bases]
        charts += [trajectories(one)] if one.plane["layers"] else []
        parts.append(f'<div class="charts">{"".join(charts)}</div>')
        for basis in one.bases:
            parts += [f"<h3>Basis {basis}</h3>", _html_table(layer_table(one, basis, columns(one)))]
        if one.steering:
            parts += ["<h3>Steering: shares of rows</h3>", _html_table(steering_table(one))]
    meanings = "".join(f"<dt>{escape(c.heading)}</dt><dd>{escape(c.meaning)}</dd>" for c in columns(found[0]))
    parts.append(f"<h2>Columns</h2><dl>{meanings}</dl>")
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_PAGE_STYLE}{STYLE}</style></head>"
    )
    return f"{head}<body>{''.join(parts)}</body></html>\n"


def markdown(found: Sequence[LayerResults]) -> str:
    """The tables."""
    parts = []
    for one in found:
        parts.append(f"## {one.task}, {one.model}\n\n{one.metric} on {one.n_test} test rows")
        parts += [f"Basis {basis}\n\n{_plain_table(layer_table(one, basis, columns(one)))}" for basis in one.bases]
        if one.steering:
            parts.append(f"Steering: shares of rows\n\n{_plain_table(steering_table(one))}")
    return "\n\n".join(parts) + "\n"


FORMS: Mapping[str, Callable[[Sequence[LayerResults]], str]] = {"html": page, "markdown": markdown}


def _html_table(cells: Sequence[Sequence[str]]) -> str:
    head, *lines = cells
    rows = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    rows += ["".join(f"<td>{escape(cell)}</td>" for cell in one) for one in lines]
    return f'<div class="wide" tabindex="0"><table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'


def _plain_table(cells: Sequence[Sequence[str]]) -> str:
    head, *lines = cells
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(one)} |" for one in [head, rule, *lines])
