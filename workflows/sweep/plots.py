"""Charts of a sweep: which settings go with which scores, and how much each setting matters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workflows.config.space import Domain, Space
from workflows.report.svg import Scale, bar, line, number, panel, polyline, svg_file, text
from workflows.search.proposals import finished_trial

_LEAST = 4  # configurations, for the importances to mean anything
_TOP, _BOTTOM, _HEIGHT = 48, 292, 326  # of the axes, and of the chart
_APART = 120  # pixels from axis to axis
_LEFT = 70
_LOW, _HIGH, _BEST = (0xC6, 0xDB, 0xEF), (0x08, 0x30, 0x6B), "#d55e00"  # of lines, by score


def plot_sweep(records: Sequence[Mapping[str, Any]], space: Space, metric: str, folder: Path) -> None:
    """Write parallel-coordinates.svg, and importance.svg where several settings vary and scores differ."""
    inside = [
        record
        for record in records
        if record["validation"] is not None
        and all(domain.holds(record["settings"][name]) for name, domain in space.items())
    ]
    if inside:
        chart = parallel_coordinates(inside, space, metric)
        (folder / "parallel-coordinates.svg").write_text(svg_file(chart), encoding="utf-8")
    if len(inside) >= _LEAST and len(space) > 1 and len({record["validation"] for record in inside}) > 1:
        chart = importance(importances(inside, space), metric)
        (folder / "importance.svg").write_text(svg_file(chart), encoding="utf-8")


def parallel_coordinates(records: Sequence[Mapping[str, Any]], space: Space, metric: str) -> str:
    """A line per configuration through an axis per setting to its score; darker for a higher score, the best on top."""
    ordered = sorted(records, key=lambda record: record["validation"])
    scores = [record["validation"] for record in ordered]
    places = {name: _LEFT + _APART * place for place, name in enumerate(space)}
    axes = {name: _Axis.of(domain) for name, domain in space.items()}
    end, score = _LEFT + _APART * len(space), _Axis(Scale(scores, _BOTTOM, _TOP))
    drawn = []
    for record in ordered:
        points = [(places[name], axes[name].height(record["settings"][name])) for name in space]
        points.append((end, score.height(record["validation"])))
        best = record is ordered[-1]
        told = ", ".join(
            [*(f"{name} {_short(record['settings'][name])}" for name in space), f"{record['validation']:.3f}"]
        )
        drawn.append(
            polyline(points, _BEST if best else _shade(record["validation"], scores), 2.5 if best else 1, told)
        )
    for name in space:
        drawn += axes[name].drawn(places[name], name)
    drawn += score.drawn(end, metric.replace("_", "-"), right=True)
    drawn.append(text(2, _HEIGHT - 6, f"{len(ordered)} configurations; darker: a higher score; heavy: the highest"))
    return panel("Settings and scores on validation rows", drawn, _HEIGHT, end + 60)


def importance(shares: Mapping[str, float], metric: str) -> str:
    """A bar per setting, the longest first."""
    left, width, row = 130, 400, 22
    longest = max(shares.values())
    drawn = []
    for place, (name, share) in enumerate(sorted(shares.items(), key=lambda pair: -pair[1])):
        y = 28 + row * place
        wide = share / longest * (width - 40 - left)
        drawn += [text(left - 8, y + 12, name, "end"), bar(left, y, wide, row - 7)]
        drawn.append(text(left + wide + 5, y + 12, f"{share:.2f}"))
    height = 28 + row * len(shares) + 26
    drawn.append(text(left, height - 8, f"share of the variance of {metric.replace('_', '-')} (fANOVA)"))
    return panel("Importance of each setting", drawn, height, width)


def importances(records: Sequence[Mapping[str, Any]], space: Space) -> dict[str, float]:
    """Setting -> its share of the scores' variance, as Optuna's fANOVA estimates it; they add up to 1."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials([finished_trial(record, space) for record in records])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )


class _Axis:
    """The axis of a setting, or of the score."""

    def __init__(self, scale: Scale, choices: Sequence[Any] = (), whole: bool = False) -> None:
        self._scale, self._choices = scale, list(choices)
        self._ticks = [tick for tick in scale.ticks() if not whole or tick == int(tick)]

    @classmethod
    def of(cls, domain: Domain) -> _Axis:
        if domain.kind == "choice":
            return cls(Scale([0.0, len(domain.values) - 1.0], _BOTTOM, _TOP), domain.values)
        return cls(Scale(domain.values, _BOTTOM, _TOP, domain.kind == "log_uniform"), whole=domain.kind == "integer")

    def height(self, value: Any) -> float:
        return self._scale(self._choices.index(value) if self._choices else value)

    def drawn(self, x: float, name: str, right: bool = False) -> list[str]:
        """The axis at its place; its words are drawn over the lines on its left, or on its right."""
        ticks = (
            [(place, _short(value)) for place, value in enumerate(self._choices)]
            if self._choices
            else [(tick, number(tick)) for tick in self._ticks]
        )
        drawn = [line(x, _TOP - 6, x, _BOTTOM + 6, "#333"), text(x, _TOP - 14, name, "middle")]
        for value, words in ticks:
            y = self._scale(value)
            aside, anchor = (4, "start") if right else (-4, "end")
            drawn += [line(x, y, x + aside, y, "#333"), text(x + 1.5 * aside, y + 4, words, anchor, "over")]
        return drawn


def _shade(score: float, scores: Sequence[float]) -> str:
    part = (score - min(scores)) / (max(scores) - min(scores) or 1)
    return "#" + "".join(f"{round(low + part * (high - low)):02x}" for low, high in zip(_LOW, _HIGH, strict=True))


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()  # as in the file
    return f"{value:.3g}" if isinstance(value, float) else str(value)
