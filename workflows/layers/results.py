"""What came of a layer study: read from the artifacts, as results of the last layer and as a table of all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.store.artifacts import Store
from workflows.layers.graph import Study
from workflows.results.model import Costs, Detail, Found, Result
from workflows.steps.layers.scores import PLANE, SCORES
from workflows.steps.layers.steer import STEERING
from workflows.steps.layers.stored import AFTER, NEIGHBOURS

Row = Mapping[str, Any]


@dataclass(frozen=True)
class LayerResults:
    """One task under one model.

    Attributes:
        labels: names of the classes, in order.
        layers: a record for each layer and basis, in the order of layers (see `steps.layers.scores`).
        steering: a record for each layer and basis; empty where no row was steered.
        plane: see `steps.layers.plane`.
    """

    model: str
    task: str
    labels: Sequence[str]
    metric: str
    n_test: int
    layers: Sequence[Row]
    steering: Sequence[Row]
    plane: Mapping[str, Any]

    def of(self, basis: str) -> list[Row]:
        """The layers by one basis; the last one is always `head`."""
        return [row for row in self.layers if row["basis"] == basis]

    @property
    def bases(self) -> list[str]:
        return list(dict.fromkeys(row["basis"] for row in self.layers))


def read_study(study: Study, store: Store) -> LayerResults | None:
    """None where it is not there yet. Raises DamagedArtifact."""
    scores = store.find(study.scores)
    steering = store.find(study.steering) if study.steering is not None else None
    if scores is None:
        return None
    found = scores.json(SCORES)
    moved = steering.json(STEERING) if steering is not None else []
    return LayerResults(
        study.model,
        study.task,
        study.labels,
        found["metric"],
        found["n_test"],
        found["layers"],
        moved,
        scores.json(PLANE),
    )


def last_results(found: LayerResults, seed: int) -> list[Found]:
    """The methods at the input of the LM head, as any comparison has them."""
    last = found.layers[-1]
    names = (found.model, found.task)
    results: list[Found] = []
    for name, score in last["scores"].items():
        result = Result(*names, name, found.metric, **score, sd_seeds=None, seeds=[seed], n_test=found.n_test)
        weights = last["weights"].get(name, 0)
        results.append((result, Detail(trained_weights=weights, costs=Costs(), labels=list(found.labels))))
    return results


@dataclass(frozen=True)
class Reading:
    """A column of the table of layers: its name in JSON and MLflow, heading, meaning, number, and digits."""

    name: str
    heading: str
    meaning: str
    of: Callable[[Row], float | None]
    digits: int = 3


def _score(name: str) -> Callable[[Row], float | None]:
    return lambda row: row["scores"].get(name, {}).get("mean")


def _number(name: str) -> Callable[[Row], float | None]:
    return lambda row: row[name]


def columns(found: LayerResults) -> list[Reading]:
    """All readings, in the order of the table."""
    numbers = [name.removeprefix(NEIGHBOURS) for name in found.layers[-1]["scores"] if name.startswith(NEIGHBOURS)]
    neighbours = [number for number in numbers if not number.endswith(AFTER)]
    return [
        Reading("affinity", "affinity", "vocabulary affinity, nothing trained", _score("affinity")),
        Reading("affinity_centred", "centred", "affinity of centred states", _score("affinity-centred")),
        Reading("calibration", "calibr.", "affinity after semantic calibration", _score("calibration")),
        Reading("semantic_prior", "prior", "semantic prior", _score("semantic-prior")),
        Reading("linear_probe", "probe", "linear probe on the same states", _score("linear-probe")),
        *(
            Reading(f"knn_{k}", f"knn {k}", f"{k} nearest training states", _score(f"{NEIGHBOURS}{k}"))
            for k in neighbours
        ),
        *(
            Reading(f"knn_{k}_calibrated", f"{k} cal.", "the same after calibration", _score(f"{NEIGHBOURS}{k}{AFTER}"))
            for k in neighbours
        ),
        Reading("rand_index", "ARI", "adjusted Rand index of k-means clusters and labels", _number("rand_index")),
        Reading("rand_index_calibrated", "ARI cal.", "the same after calibration", _number("rand_index_calibrated")),
        Reading("recomposed", "recomp.", "cosine of states and their recomposition", _number("recomposed")),
        Reading("cosine_within", "within", "mean cosine of two states of one class", _number("cosine_within")),
        Reading("cosine_between", "between", "mean cosine of two of different classes", _number("cosine_between")),
        Reading("settled", "settled", "rows whose prediction changes no more", _number("settled"), 2),
        Reading("label_rank", "rank", "median rank of the best label word", _number("label_rank"), 0),
        Reading("entropy", "entropy", "of the vocabulary's probabilities, in nats", _number("entropy"), 2),
    ]


def layer_table(found: LayerResults, basis: str, shown: Sequence[Reading]) -> list[list[str]]:
    """Cells of one basis: a heading, then a line a layer. Columns without a value there are left out."""
    rows = found.of(basis)
    kept = [one for one in shown if any(one.of(row) is not None for row in rows)]
    return [
        ["layer", *(one.heading for one in kept)],
        *([row["layer"], *(_cell(one, row) for one in kept)] for row in rows),
    ]


def _cell(reading: Reading, row: Row) -> str:
    value = reading.of(row)
    return "" if value is None else f"{value:,.{reading.digits}f}"


def steering_table(found: LayerResults) -> list[list[str]]:
    """Cells: how often a move along the basis, and along a random direction, made the prediction the target."""
    heading = ["layer", "basis", "rows", "became the target", "at random", "changed", "at random"]
    names = ("to_target", "to_target_random", "changed", "changed_random")
    return [
        heading,
        *(
            [row["layer"], row["basis"], str(row["rows"]), *(f"{row[name] / row['rows']:.2f}" for name in names)]
            for row in found.steering
        ),
    ]


def aligned(cells: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a table; all but the first `words` columns stand on the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            f"{cell:{width}}" if place < words else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
