"""The report as one HTML page that needs no network: styles and charts are inside."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from workflows.report import charts
from workflows.report.contents import Block, Contents
from workflows.report.svg import STYLE
from workflows.results.answers import level
from workflows.results.columns import COLUMNS, SECONDS
from workflows.results.model import Detail, Versus
from workflows.results.wording import CONTRADICTORY, LEVEL, interval, probability

SIGNS = {"better": "▲", "worse": "▼", "no difference shown": "○"}
_MIXED_UP = 12  # of the most frequent, where a matrix would be too large


def page(contents: Contents) -> str:
    """HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    methods = dict.fromkeys(result.method for result, _ in contents.results)
    numbers = {method: number for number, method in enumerate(methods)}
    places = [(block, task) for block in contents.blocks for task in block.tasks]
    tasks = dict.fromkeys(task for _, task in places)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(
        c=contents,
        title=title(contents),
        headline=contents.headline(),
        size=contents.size,
        leads=_some(charts.leads(block, task, numbers) for block, task in places),
        costs=_some(charts.cost(block, task, numbers) for block, task in places),
        learning=_some(
            charts.learning(sizes, task, numbers)
            for block in contents.blocks
            for sizes in [contents.at_sizes(block.model)]
            for task in (None, *block.tasks)
        ),
        model_sizes=_some(charts.model_sizes(contents.blocks, task, numbers) for task in tasks),
        best=lambda block, task: block.on(task)[0][0].mean,
        sign=sign,
        level=lambda detail: LEVEL if level(detail) else "",
        LEVEL=LEVEL,
        CONTRADICTORY=CONTRADICTORY,
        seconds=SECONDS,
        remarks=remarks,
        chart_style=STYLE,
        columns=COLUMNS,
        mixed_up=mixed_up,
        p=probability,
        interval=interval,
    )


def title(contents: Contents) -> str:
    """How many methods on which tasks and models."""
    methods = {method for block in contents.blocks for method in block.methods}
    tasks = {task for block in contents.blocks for task in block.tasks}
    models = [block.model for block in contents.blocks]
    on = f"{len(tasks)} tasks" if len(tasks) > 1 else next(iter(tasks))
    return f"{len(methods)} methods on {on} with {', '.join(models)}"


def sign(versus: Versus | None) -> str:
    """A shape for each verdict."""
    return SIGNS.get(versus.verdict or "", "") if versus is not None else ""


def remarks(block: Block, method: str) -> str:
    """What a reader must know before comparing: another budget, predictions that are all one class."""
    constant = [result.task for result, detail in block.of(method) if detail.constant_prediction]
    parts = [block.notes[method], f"one class predicted throughout: {', '.join(constant)}" if constant else ""]
    return "; ".join(part for part in parts if part)


def mixed_up(detail: Detail) -> list[tuple[str, str, int]]:
    """Pairs of true and predicted class, the most frequent mistakes first."""
    places = product(range(len(detail.labels)), repeat=2)
    wrong = [(detail.labels[a], detail.labels[b], detail.confusion[a][b]) for a, b in places if a != b]
    return sorted((one for one in wrong if one[2]), key=lambda one: -one[2])[:_MIXED_UP]


def _some(drawn: Any) -> list[str]:
    return [chart for chart in drawn if chart]
