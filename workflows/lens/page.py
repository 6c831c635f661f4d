"""A lens as one HTML page that needs no network: heat maps of layer x position, with the words in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def page(found: Sequence[Mapping[str, Any]]) -> str:
    """HTML of one text or several."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    maps = [one for number, text in enumerate(found) for one in _maps(number, text)]
    tops = json.dumps({one["id"]: one["tops"] for one in maps}, ensure_ascii=False, separators=(",", ":"))
    return environment.get_template("page.html").render(
        found=found,
        maps=maps,
        shown=shown,
        title=f"{found[0]['model']}: what every layer says",
        tops=tops.replace("<", "\\u003c"),  # within a script nothing may look like its end
    )


def shown(word: str) -> str:
    """A word with signs in the place of what cannot be seen."""
    return word.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·", 1) if word.strip() == "" else word.strip()


def _maps(number: int, text: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The heat maps of a text: the vocabulary's words, and the task's labels before and after calibration."""
    found = [_map(number, text, "words", "The likeliest word after each token", text["words"])]
    labels = text["labels"]

    def ranked(chances: Sequence[float]) -> list[tuple[str, float]]:
        return sorted(zip(labels, (round(p, 4) for p in chances), strict=True), key=lambda pair: -pair[1])

    kinds: list[tuple[str, str, Any]] = [
        ("labels", "The likeliest label, by the model's logits", text["label_probabilities"])
    ]
    if text["calibration"]:
        kinds += [
            ("before", "Before calibration, by affinity to the labels", text["calibration"]["before"]),
            ("after", "After calibration", text["calibration"]["after"]),
        ]
    for name, title, layers in kinds:
        if layers:
            found.append(
                _map(number, text, name, title, [[ranked(place) for place in positions] for positions in layers])
            )
    return found


def _map(number: int, text: Mapping[str, Any], name: str, title: str, layers: Sequence[Any]) -> dict[str, Any]:
    """A heat map; `tops` has for each layer and position all that a hover shows."""
    rows = [
        {
            "layer": layer,
            "cells": [
                {"word": shown(tops[0][0]), "p": tops[0][1], "shade": round(100 * tops[0][1]), "dark": tops[0][1] > 0.5}
                for tops in positions
            ],
        }
        for layer, positions in zip(text["layers"], layers, strict=True)
    ]
    return {"id": f"{name}-{number}", "text": number, "name": name, "title": title, "rows": rows, "tops": layers}
