"""The report's charts: leads over the reference, score against cost, learning and model-size curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from workflows.report.contents import Average, Block
from workflows.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    colour,
    dash,
    frame,
    labels,
    line,
    marker,
    number,
    panel,
    text,
)
from workflows.results.model import Found, Result

_LEAST_SECONDS = 1e-3  # what is faster stands at the edge
_ROW = 19  # pixels a method
Numbers = Mapping[str, int]  # method -> its number in the table, which gives its mark


def leads(block: Block, task: str, numbers: Numbers) -> str:
    """Difference to the reference of each method on a task, with its 95 % interval; the mark says the verdict."""
    shown = [(method, detail.versus) for method, (_, detail) in _on(block, task) if detail.versus is not None]
    if not shown:
        return ""
    left, right = 120, WIDTH - 14
    ends = [end for _, versus in shown for end in (versus.low, versus.high)]
    x = Scale([0.0, *ends], left, right)
    bottom = TOP + _ROW * len(shown) + 4
    drawn = [line(x(0), TOP, x(0), bottom, "#000", 1)]
    for tick in x.ticks():
        drawn += [
            line(x(tick), bottom, x(tick), bottom + 4, "#555"),
            text(x(tick), bottom + 16, f"{tick:+.2f}", "middle"),
        ]
    for place, (method, versus) in enumerate(shown):
        y = TOP + _ROW * place + 11
        sign = {"better": "▲", "worse": "▼"}.get(versus.verdict or "", "○")
        heavy = versus.verdict != "no difference shown"
        drawn += [
            text(left - 22, y + 4, method, "end"),
            text(left - 10, y + 4, sign, "middle", "sign"),
            line(x(versus.low), y, x(versus.high), y, "#222" if heavy else "#888", 2.2 if heavy else 1.2),
            *(line(x(end), y - 3, x(end), y + 3, "#222" if heavy else "#888") for end in (versus.low, versus.high)),
            marker(x(versus.mean), y, numbers[method], title=f"{method} {versus.mean:+.3f}"),
        ]
    drawn.append(text((left + right) / 2, bottom + 32, f"{shown[0][1].reference} = 0", "middle"))
    return panel(f"{task}, {block.model}", drawn, bottom + 38)


def cost(block: Block, task: str, numbers: Numbers) -> str:
    """Score against seconds: filled with everything counted, hollow with states cached, both of one method joined."""
    points = [
        (method, result.mean, _clamped(detail.costs.total), _clamped(detail.costs.marginal))
        for method, (result, detail) in _on(block, task)
        if detail.costs.total is not None and detail.costs.marginal is not None
    ]
    if not points:
        return ""
    x = Scale([value for *_, total, marginal in points for value in (total, marginal)], LEFT, WIDTH - RIGHT, log=True)
    y = Scale([mean for _, mean, _, _ in points], HEIGHT - BOTTOM, TOP)
    drawn = frame(x, y, "seconds, logarithmic")
    drawn += labels([(x(total), y(mean), method, numbers[method]) for method, mean, total, _ in points])
    for method, mean, total, marginal in points:
        drawn += [
            line(x(marginal), y(mean), x(total), y(mean), colour(numbers[method]), 1, "1 3"),
            marker(x(marginal), y(mean), numbers[method], False, f"{method} {mean:.3f}, {marginal:.3g} s cached"),
            marker(x(total), y(mean), numbers[method], True, f"{method} {mean:.3f}, {total:.3g} s in all"),
        ]
    return panel(f"{task}, {block.model}: {_metric(block, task)}", drawn)


def learning(blocks: Mapping[int | str, Block], task: str | None, numbers: Numbers) -> str:
    """Scores over training sizes with their intervals; what reads no training rows is a level line.

    Args:
        blocks: the results of a model at each training size.
        task: None: the mean over tasks, where there are several.
        numbers: of each method.
    """
    sizes, last = list(blocks), list(blocks.values())[-1]
    if len(sizes) < 2 or (task is None and len(last.tasks) < 2):
        return ""
    every = {method: list(enumerate(_over(blocks, task, method))) for method in numbers}
    found = {method: points for method in numbers if (points := [(at, one) for at, one in every[method] if one])}
    x = Scale([0.0, float(len(sizes) - 1)], LEFT, WIDTH - RIGHT)
    bounds = [end for points in found.values() for _, one in points for end in (one.low, one.high)]
    y = Scale(bounds, HEIGHT - BOTTOM, TOP)
    drawn = frame(x, y, "training rows per class", [(place, str(size)) for place, size in enumerate(sizes)])
    ends = []
    apart = min(3.0, (x(1.0) - x(0.0)) / 3 / len(found))  # intervals stand side by side, near their size
    for number_of, (method, points) in enumerate(found.items()):
        aside = apart * (number_of - (len(found) - 1) / 2)
        which = numbers[method]
        placed = [(x(place) + aside, one) for place, one in points]
        if len(placed) == 1:
            at, only = placed[0]
            drawn.append(line(LEFT, y(only.mean), at, y(only.mean), colour(which), 1.2, "1 3"))
        for (x1, first), (x2, second) in pairwise(placed):
            drawn.append(line(x1, y(first.mean), x2, y(second.mean), colour(which), 1.6, dash(which)))
        for at, one in placed:
            drawn.append(line(at, y(one.low), at, y(one.high), colour(which), 0.7))
            drawn.append(marker(at, y(one.mean), which, title=f"{method} {one.mean:.3f}"))
        ends.append((placed[-1][0], y(placed[-1][1].mean), method, which))
    return panel(f"{task or f'mean over {len(last.tasks)} tasks'}, {last.model}", [*drawn, *labels(ends)])


def _over(blocks: Mapping[int | str, Block], task: str | None, method: str) -> Iterator[Result | Average | None]:
    """A method's score, or its mean over tasks, at each size; None where it is missing."""
    for block in blocks.values():
        if task is None:
            yield block.average(method)
        else:
            yield block.found[method, task][0] if (method, task) in block.found else None


def model_sizes(blocks: Sequence[Block], task: str, numbers: Numbers) -> str:
    """Scores over the weights of the models."""
    found = [
        (detail.model_weights, result)
        for block in blocks
        for method in block.methods
        if (method, task) in block.found
        for result, detail in [block.found[method, task]]
        if detail.model_weights
    ]
    if len({weights for weights, _ in found}) < 2:
        return ""
    x = Scale([weights for weights, _ in found], LEFT, WIDTH - RIGHT, log=True)
    y = Scale([result.mean for _, result in found], HEIGHT - BOTTOM, TOP)
    drawn = frame(x, y, "weights of the model, logarithmic", [(w, number(w)) for w in sorted({w for w, _ in found})])
    ends = []
    for method in dict.fromkeys(result.method for _, result in found):
        points = sorted((x(weights), y(result.mean)) for weights, result in found if result.method == method)
        which = numbers[method]
        drawn += [line(*first, *second, colour(which), 1.6, dash(which)) for first, second in pairwise(points)]
        drawn += [marker(*point, which) for point in points]
        ends.append((*points[-1], method, which))
    return panel(task, [*drawn, *labels(ends)])


def _on(block: Block, task: str) -> list[tuple[str, Found]]:
    return [(found[0].method, found) for found in block.on(task)]


def _metric(block: Block, task: str) -> str:
    return next(result.metric for _, (result, _) in _on(block, task)).replace("_", "-")


def _clamped(value: float | None) -> float:
    return max(value or 0.0, _LEAST_SECONDS)
