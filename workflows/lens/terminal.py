"""A lens in the terminal: a line a layer, a column a position, stronger colour for a higher probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_CELL = 13  # characters of a column with the space beside it
_SHADES = (
    "grey50",
    "cyan",
    "bright_cyan",
    "bold bright_green",
)  # by quarters of probability; without colour: as they are


def show(found: Mapping[str, Any], console: Any) -> None:
    """Print one text's layers: as many of the last positions as there is room for, and the task's label."""
    from rich.table import Table
    from rich.text import Text

    layers, labelled = found["layers"], bool(found["labels"])
    after = found["calibration"]
    beside = 10 + (labelled + bool(after)) * 18
    room = max(1, (console.width - beside) // _CELL)
    shown = list(range(len(found["tokens"])))[-room:]
    if found["position"] not in shown:  # of a masked model it may stand further on the left
        shown[0] = found["position"]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("layer", no_wrap=True)
    for place in shown:
        table.add_column(Text(_short(found["tokens"][place])), no_wrap=True, max_width=_CELL - 1)
    if labelled:
        table.add_column("label", no_wrap=True)
    if after:
        table.add_column("calibrated", no_wrap=True)
    for number, layer in enumerate(layers):
        cells = [_shaded(*found["words"][number][place][0]) for place in shown]
        for chances in _chances(found, number):
            best = max(range(len(chances)), key=chances.__getitem__)
            cells.append(_shaded(found["labels"][best], chances[best], told=True))
        table.add_row(Text(layer, style="bold" if layer == "head" else ""), *cells)
    console.print(f"{found['model']}: the likeliest word after each token, by layer", style="bold", highlight=False)
    console.print(table)
    for one in found["nearest"]:
        console.print(f"near: {one['cosine']:.3f}  {one['label']}  {one['text'][:100]}", markup=False, highlight=False)


def _chances(found: Mapping[str, Any], number: int) -> list[Sequence[float]]:
    """The labels' probabilities at the position that predicts: the model's, and calibrated ones."""
    kinds = [found["label_probabilities"], (found["calibration"] or {}).get("after")]
    return [kind[number][found["position"]] for kind in kinds if kind]


def _shaded(word: str, p: float, told: bool = False) -> Any:
    from rich.text import Text

    return Text(_short(word) + (f" {p:.2f}" if told else ""), style=_SHADES[min(3, int(p * 4))])


def _short(word: str) -> str:
    """A word as one line; a space that is all of it, or a line break, is shown as a sign."""
    shown = word.replace("\n", "⏎").replace("\t", "⇥")
    return (shown.strip() or "␣") if len(shown.strip()) < _CELL else f"{shown.strip()[: _CELL - 2]}…"
