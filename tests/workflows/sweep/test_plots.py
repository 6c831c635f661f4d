"""The charts of a sweep."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from workflows.config.space import Domain
from workflows.sweep.plots import importances, plot_sweep

SPACE = {
    "rate": Domain(log_uniform=(1e-4, 1e-1)),
    "rank": Domain(integer=(2, 4)),
    "loss": Domain(choice=("labels", "<all>")),
    "bias": Domain(choice=(True, False)),
}


def records(count: int) -> list[dict[str, Any]]:
    """Scores that follow from `loss` alone."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        settings = {name: domain.sample(draw) for name, domain in SPACE.items()}
        found.append({"settings": settings, "validation": 0.5 + 0.25 * (settings["loss"] == "labels") + number / 1e4})
    return found


def drawn(path: Path, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}" + tag))


def words(path: Path) -> list[str]:
    return [element.text or "" for element in drawn(path, "text")]


def test_a_line_per_configuration_leads_through_its_settings_to_its_score(tmp_path: Path) -> None:
    failed = {"settings": records(1)[0]["settings"], "validation": None}
    outside = {"settings": {**records(1)[0]["settings"], "rank": 9}, "validation": 0.9}  # the defaults may be such
    made = records(12)
    plot_sweep([*made, failed, outside], SPACE, "macro_f1", tmp_path)
    chart = tmp_path / "parallel-coordinates.svg"
    lines = drawn(chart, "polyline")
    assert len(lines) == 12
    assert all(len(line.attrib["points"].split()) == len(SPACE) + 1 for line in lines)
    best = max(made, key=lambda record: record["validation"])
    heavy = [line for line in lines if line.attrib["stroke-width"] != "1"]
    assert heavy == lines[-1:]  # over the others
    assert (heavy[0][0].text or "").endswith(f"{best['validation']:.3f}")
    shown = words(chart)
    assert {"rate", "rank", "loss", "bias", "macro-f1", "<all>", "true", "false"} <= set(shown)
    assert {"0.0001", "0.001", "0.01", "0.1"} <= set(shown)  # decades, as the axis is logarithmic
    assert {"2", "3", "4"} <= set(shown)
    assert not {"2.5", "3.5"} & set(shown)  # a rank is a whole number


def test_a_setting_that_decides_the_score_has_the_longest_bar(tmp_path: Path) -> None:
    made = records(40)
    shares = importances(made, SPACE)
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=lambda name: shares[name]) == "loss"
    assert shares["loss"] > 0.9
    plot_sweep(made, SPACE, "accuracy", tmp_path)
    widths = [float(bar.attrib["width"]) for bar in drawn(tmp_path / "importance.svg", "rect")]
    assert widths == sorted(widths, reverse=True)
    assert widths[1] / widths[0] == pytest.approx(sorted(shares.values())[-2] / shares["loss"], abs=0.01)
    assert words(tmp_path / "importance.svg")[1] == "loss"


def test_there_is_no_chart_of_nothing(tmp_path: Path) -> None:
    plot_sweep([], SPACE, "accuracy", tmp_path)
    assert not list(tmp_path.iterdir())
    plot_sweep([{**one, "validation": 0.5} for one in records(8)], SPACE, "accuracy", tmp_path)  # nothing to explain
    assert [path.name for path in tmp_path.iterdir()] == ["parallel-coordinates.svg"]
