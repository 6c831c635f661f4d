"""Pieces of charts as SVG text. Every mark has a shape or a dash of its own, so that none is told by colour alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 400, 300  # of a panel, in the pixels of a phone
LEFT, RIGHT, TOP, BOTTOM = 40, 154, 26, 40  # margins; labels stand on the right
_LONGEST = 20  # letters of a label that have room there
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#3b9dd6", "#000000")  # after Okabe and Ito
_SHAPES = ("circle", "square", "up", "diamond", "down", "plus", "cross")
_DASHES = ("", "6 3", "2 2", "8 3 2 3")
_LABEL = 13  # pixels from label to label
STYLE = (
    'svg text { font: 11px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: #222; }'
    "svg text.title { font-weight: 600; font-size: 12.5px; }"
    'svg text.sign { font-family: "DejaVu Sans", sans-serif; }'
    "svg text.over { paint-order: stroke; stroke: #fff; stroke-width: 3px; }"
)


def colour(number: int) -> str:
    """A method's, by its number in the table."""
    return _COLOURS[number % len(_COLOURS)]


def dash(number: int) -> str:
    """A pattern for stroke-dasharray, "" for a whole line."""
    return _DASHES[number % len(_DASHES)]


def marker(x: float, y: float, number: int, filled: bool = True, title: str = "") -> str:
    """The mark of a method, by its number in the table."""
    shape = _SHAPES[(number + number // len(_SHAPES)) % len(_SHAPES)]
    r = 4.5
    corners: dict[str, list[tuple[float, float]]] = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "up": [(0, -r - 1), (r + 1, r), (-r - 1, r)],
        "down": [(0, r + 1), (r + 1, -r), (-r - 1, -r)],
        "diamond": [(0, -r - 1.5), (r + 1.5, 0), (0, r + 1.5), (-r - 1.5, 0)],
        "plus": [
            (-2, -6),
            (2, -6),
            (2, -2),
            (6, -2),
            (6, 2),
            (2, 2),
            (2, 6),
            (-2, 6),
            (-2, 2),
            (-6, 2),
            (-6, -2),
            (-2, -2),
        ],
    }
    corners["cross"] = [((a - b) * 0.71, (a + b) * 0.71) for a, b in corners["plus"]]
    paint = f'fill="{colour(number) if filled else "#fff"}" stroke="{colour(number)}" stroke-width="1.5"'
    told = f"<title>{escape(title)}</title>" if title else ""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {paint}>{told}</circle>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
    return f'<polygon points="{points}" {paint}>{told}</polygon>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = "#999", width: float = 1, dashes: str = "") -> str:
    """A straight line."""
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}"'
        f"{dashed}/>"
    )


def polyline(points: Sequence[tuple[float, float]], stroke: str, width: float, title: str) -> str:
    """Straight lines from point to point."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    told = f"<title>{escape(title)}</title>"
    return f'<polyline points="{places}" fill="none" stroke="{stroke}" stroke-width="{width}">{told}</polyline>'


def bar(x: float, y: float, width: float, height: float) -> str:
    """A filled rectangle, from its upper left corner."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour(0)}"/>'


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Words at a place."""
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def panel(title: str, parts: Sequence[str], height: float = HEIGHT, width: float = WIDTH) -> str:
    """A chart with its title, for a page that has `STYLE`."""
    body = "".join([text(2, 14, title, kind="title"), *parts])
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">{body}</svg>'


def svg_file(chart: str) -> str:
    """A panel as an SVG file, on white: viewers may have a dark page."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff"'
    return chart.replace("<svg", head, 1).replace(">", f"><style>{STYLE}</style>", 1) + "\n"


def labels(places: Sequence[tuple[float, float, str, int]], bottom: float = HEIGHT - BOTTOM) -> list[str]:
    """Names on the right of points (x, y, name, number), with their marks and joined to them; none covers another."""
    ordered = sorted(places, key=lambda place: place[1])
    heights: list[float] = []
    for _, y, _, _ in ordered:
        heights.append(max(y, heights[-1] + _LABEL if heights else TOP))
    for place in range(len(heights) - 1, -1, -1):  # what fell out below pushes the others up
        most = bottom + 6 if place == len(heights) - 1 else heights[place + 1] - _LABEL
        heights[place] = min(heights[place], most)
    x = WIDTH - RIGHT + 16
    drawn = []
    for (px, py, name, number), y in zip(ordered, heights, strict=True):
        shown = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        drawn += [line(px + 7, py, x - 2, y, "#bbb", 0.7), marker(x + 5, y, number), text(x + 14, y + 4, shown)]
    return drawn


class Scale:
    """Numbers to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float, log: bool = False) -> None:
        self.log = log
        found = [math.log10(value) if log else value for value in values]
        low, high = min(found), max(found)
        room = (high - low) * 0.06 or (0.5 if log else 0.05)
        self.low, self.high, self._start, self._end = low - room, high + room, start, end

    def __call__(self, value: float) -> float:
        place = math.log10(value) if self.log else value
        return self._start + (place - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round numbers within, four or so; powers of ten on a logarithmic scale where it spans some."""
        if self.log:
            powers = [10.0**p for p in range(math.ceil(self.low), math.floor(self.high) + 1)]
            apart = -(-len(powers) // 5)
            return powers[::apart] if len(powers) > 1 else [10 ** ((self.low + self.high) / 2)]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step) + 1)]


def frame(x: Scale, y: Scale, below: str, x_ticks: Sequence[tuple[float, str]] | None = None) -> list[str]:
    """Axes with ticks; the scores' axis has no name but the panel's title."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    drawn = [line(LEFT, bottom, right, bottom, "#555"), line(LEFT, TOP, LEFT, bottom, "#555")]
    for value in y.ticks():
        drawn += [line(LEFT, y(value), right, y(value), "#e4e4e4"), text(LEFT - 5, y(value) + 4, f"{value:.2f}", "end")]
    for value, words in x_ticks if x_ticks is not None else [(tick, number(tick)) for tick in x.ticks()]:
        drawn += [line(x(value), bottom, x(value), bottom + 4, "#555"), text(x(value), bottom + 16, words, "middle")]
    return [*drawn, text((LEFT + right) / 2, HEIGHT - 6, below, "middle")]


def number(value: float) -> str:
    """A short number for an axis."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.3g}"
