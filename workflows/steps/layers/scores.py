"""The step that scores what was read of every layer: the only one that reads test labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.files import json_bytes
from workflows.steps.code import code_of
from workflows.steps.layers.stored import CLUSTERS

SCORES, PLANE = "scores.json", "plane.json"
SETTLES_BY = "affinity-centred"  # whose prediction is followed through the layers


def scores_step(readings: Step, test: Step, labels: Step, classes: Sequence[str], metric: str) -> Step:
    """Scores of every layer and basis."""
    return Step(
        name="layer-scores",
        label=readings.label.replace("layers", "layer-scores", 1),
        version=3,  # 3: macro-F1's interval leaves out the classes that a draw has not
        run="workflows.steps.layers.scores:fill_scores",
        identity={"classes": len(classes), "metric": metric},
        inputs={"readings": readings, "test": test, "labels": labels},
        subject=readings.subject,
        sources=code_of(fill_scores),
    )


def fill_scores(work: StepContext) -> None:
    """scores.json: a record for each layer and basis, with every reading's score and interval, and Rand indices;
    plane.json: the classes' ways."""
    import numpy as np

    from orchestration.store.arrow import ROW_ID
    from vocabsem_core.lens.readings import rand_index
    from workflows.methods.inputs.states import read_column
    from workflows.steps.layers.plane import plane_of
    from workflows.steps.layers.stored import readings_of

    rows = read_column(work.inputs["test"], ROW_ID)
    labels = read_column(work.inputs["labels"], "label")[rows].astype(np.int64)
    stored = list(readings_of(work.inputs["readings"]))
    found = {
        f"{one.record['layer']}/{one.record['basis']}/{name}": value.numpy()
        for one in stored
        for name, value in one.predictions.items()
    }
    names = [name for name in found if name.rpartition("/")[2] not in CLUSTERS]
    scores = dict(zip(names, _scores(np.stack([found[name] for name in names]), labels, work.identity), strict=True))
    records = []
    for record in (one.record for one in stored):
        place = f"{record['layer']}/{record['basis']}"
        indices = [found.get(f"{place}/{name}") for name in CLUSTERS]
        record["scores"] = {
            name.removeprefix(f"{place}/"): score for name, score in scores.items() if name.startswith(f"{place}/")
        }
        record["rand_index"], record["rand_index_calibrated"] = (
            None if one is None else rand_index(one, labels) for one in indices
        )
        records.append(record)
    for record in records:
        record |= _settling(record, records, found)
    ways = {one.record["layer"]: one.ways for one in stored if one.record["basis"] == "head"}
    work.out.write(PLANE, json_bytes(plane_of(ways)))
    work.out.write(SCORES, json_bytes({"metric": work.identity["metric"], "n_test": len(labels), "layers": records}))


def _scores(predictions: Any, labels: Any, identity: Mapping[str, Any]) -> list[dict[str, float]]:
    """Mean and 95 % bootstrap interval of each row of predictions, all by the same draws of test rows."""
    import numpy as np

    from vocabsem_core.statistics.metrics import INTERVAL, draws_of_items, metric_of

    classes, metric = identity["classes"], identity["metric"]
    means = metric_of(predictions, labels, classes, metric, np.ones((1, len(labels))))[0]
    draws = draws_of_items(len(labels), np.random.default_rng(0))
    resampled = np.concatenate([metric_of(predictions, labels, classes, metric, weights) for weights in draws])
    low, high = np.quantile(resampled, INTERVAL, axis=0)
    return [
        {"mean": float(one), "low": float(least), "high": float(most)}
        for one, least, most in zip(means, low, high, strict=True)
    ]


def _settling(record: Mapping[str, Any], records: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> Any:
    """The share of test rows whose prediction is the last layer's from this layer on."""
    import numpy as np
    import torch

    from vocabsem_core.lens.readings import settle_layers

    layers = [one["layer"] for one in records if one["basis"] == record["basis"]]
    predictions = np.stack([found[f"{layer}/{record['basis']}/{SETTLES_BY}"] for layer in layers])
    first = settle_layers(torch.from_numpy(predictions))
    return {"settled": float((first <= layers.index(record["layer"])).double().mean())}
