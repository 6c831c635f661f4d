"""Charts of a layer study: scores by layer with their intervals, and the ways of the classes through the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workflows.layers.results import LayerResults, Row
from workflows.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    colour,
    frame,
    labels,
    line,
    marker,
    panel,
    polyline,
    text,
)

_SHOWN = ("affinity", "affinity-centred", "calibration", "semantic-prior", "linear-probe", "knn-16")
_SAME = 1e-6
_SIDE, _GAP, _HEAD = 300, 26, 34  # of a plane in pixels, between the two, above them


def scores_by_layer(found: LayerResults, basis: str) -> str:
    """A line a method with 95 % intervals, from the input of the first block to the head's input."""
    rows = found.of(basis)
    names = [name for name in _SHOWN if any(name in row["scores"] for row in rows)]
    scores = [row["scores"][name] for row in rows for name in names if name in row["scores"]]
    x = Scale([0, len(rows) - 1], LEFT, WIDTH - RIGHT)
    y = Scale([score[end] for score in scores for end in ("low", "high")], HEIGHT - BOTTOM, TOP)
    drawn = frame(x, y, "layer", [(place, _short(row["layer"])) for place, row in _some(rows)])
    ends = []
    for name in names:
        number = _SHOWN.index(name)  # the same mark by every basis
        places = [(x(at), row["scores"][name]) for at, row in enumerate(rows) if name in row["scores"]]
        for px, score in places:
            drawn.append(line(px, y(score["low"]), px, y(score["high"]), colour(number), 0.6))
        drawn.append(polyline([(px, y(score["mean"])) for px, score in places], colour(number), 1.5, name))
        for px, score in places[:: max(1, len(places) // 6)]:
            told = f"{name}: {score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
            drawn.append(marker(px, y(score["mean"]), number, title=told))
        last_x, last = places[-1]
        drawn.append(marker(last_x, y(last["mean"]), number))
        ends.append((last_x, y(last["mean"]), name, number))
    title = f"{found.task}, {found.model}, basis {basis}: {found.metric.replace('_', '-')}"
    return panel(title, [*drawn, *labels(ends)])


def trajectories(found: LayerResults) -> str:
    """The class means of all layers and the label rows in one plane: before calibration left, after it right."""
    kept = sorted(found.plane["layers"].items(), key=lambda one: (one[0] == "head", one[0]))  # JSON sorts names
    layers = {layer: both for layer, both in kept if _differ(both[0])}
    parts = ["before calibration", *(["after calibration"] if all(both[1] for both in layers.values()) else [])]
    most = 1.1 * max(abs(value) for point in found.plane["rows"] for value in point)
    drawn = []
    for side, part in enumerate(parts):
        left = 8 + side * (_SIDE + _GAP)
        x, y = Scale([-most, most], left, left + _SIDE), Scale([-most, most], _HEAD + _SIDE, _HEAD)
        larger = _larger([both[side] for both in layers.values()], most)
        times = f"; class means drawn {larger} times as far out" if larger > 1 else ""
        drawn += [text(left, _HEAD - 4, part + times), line(left, y(0), left + _SIDE, y(0), "#ddd")]
        drawn.append(line(x(0), _HEAD, x(0), _HEAD + _SIDE, "#ddd"))
        for number, label in enumerate(found.labels):
            way = [(x(larger * px), y(larger * py)) for px, py in (both[side][number] for both in layers.values())]
            drawn.append(polyline(way, colour(number), 1.2, f"{label}, {part}"))
            for (layer, _), (px, py) in zip(layers.items(), way, strict=True):
                drawn.append(_dot(px, py, number, f"{label} at {layer}"))
            px, py = found.plane["rows"][number]
            drawn.append(marker(x(px), y(py), number, filled=False, title=f"basis row of {label}"))
            drawn.append(marker(*way[-1], number, title=f"{label} at head"))
    right = 8 + len(parts) * (_SIDE + _GAP)
    for number, label in enumerate(found.labels):
        at = _HEAD + 14 + 16 * number
        drawn += [marker(right, at, number), text(right + 10, at + 4, label)]
    below = f"lines: class means from {next(iter(layers))} to head (filled); hollow: the label's basis row"
    drawn.append(text(8, _HEAD + _SIDE + 18, below))
    title = f"{found.task}, {found.model}: the classes' ways through the layers, in one plane"
    return panel(title, drawn, _HEAD + _SIDE + 28, right + 110)


def _differ(means: Sequence[Sequence[float]]) -> bool:
    """Whether the classes have places of their own: at the first layer all prompts may end in one state."""
    return any(abs(value - first) > _SAME for mean in means for value, first in zip(mean, means[0], strict=True))


def _larger(ways: Sequence[Sequence[Sequence[float]]], most: float) -> int:
    """How many times as far from the centre class means are drawn, so that they can be seen beside the rows."""
    furthest = max(abs(value) for means in ways for point in means for value in point)
    return max(1, math.floor(0.7 * most / furthest)) if furthest > 0 else 1


def _dot(x: float, y: float, number: int, told: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.6" fill="{colour(number)}"><title>{told}</title></circle>'


def _some(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """Layers that are named below the axis: seven or so, the last always."""
    apart = max(1, round((len(rows) - 1) / 6))
    numbered = list(enumerate(rows))
    return [*(one for one in numbered[:-1:apart] if one[0] <= len(rows) - 1 - apart / 2), numbered[-1]]


def _short(layer: str) -> str:
    return layer.removeprefix("layer_").lstrip("0") or "0" if layer != "head" else "head"
