"""The step that finds the best method of a task and compares every other with it, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.files import json_bytes
from workflows.steps.code import code_of

BEST = "best.json"


def best_step(where: str, methods: Sequence[Mapping[int, Step]], labels: Step, n_classes: int, metric: str) -> Step:
    """Like the score it reads test labels, after all settings were chosen.

    Which method is best is known only when all have predicted, so this is one step per task. Names and order of the
    methods do not matter: they are sorted by the keys of their fits. Methods of the same fits are one here.
    """
    distinct = {tuple(_fits(fits)): fits for fits in methods}
    ordered = [distinct[keys] for keys in sorted(distinct)]
    return Step(
        name="best",
        label=f"best {where}",
        version=3,  # 3: methods of the same fits are one, and macro-F1's interval is not low
        run="workflows.steps.best:fill_best",
        identity={"classes": n_classes, "metric": metric, "seeds": [sorted(fits) for fits in ordered]},
        inputs={
            "labels": labels,
            **{_role(place, seed): step for place, fits in enumerate(ordered) for seed, step in fits.items()},
        },
        sources=code_of(fill_best),
    )


def lead_of(step: Step, record: Mapping[str, Any], fits: Mapping[int, Step], copy: bool) -> dict[str, Any] | None:
    """The difference of a method to the best, with its interval and p; None for the best itself.

    `copy`: whether a method before it has the same fits. A copy of the best is tested against it, and differs nowhere.
    """
    seeds = step.identity["seeds"]
    made = [[step.inputs[_role(place, seed)].key for seed in of] for place, of in enumerate(seeds)]
    found = record["differences"][made.index(_fits(fits))]
    return {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0} if found is None and copy else found


def copies(methods: Sequence[Mapping[int, Step]]) -> list[bool]:
    """Of each method, whether one before it has the same fits."""
    made = [_fits(fits) for fits in methods]
    return [keys in made[:place] for place, keys in enumerate(made)]


def fill_best(work: StepContext) -> None:
    """best.json: the score of each method, the place of the best, and the difference of each other to it."""
    import numpy as np

    from orchestration.store.arrow import ROW_ID
    from vocabsem_core.statistics.metrics import metric_of
    from vocabsem_core.statistics.paired_tests import lead
    from workflows.methods.inputs.states import read_column

    n_classes, metric = work.identity["classes"], work.identity["metric"]
    methods = [
        [work.inputs[_role(place, seed)] for seed in seeds] for place, seeds in enumerate(work.identity["seeds"])
    ]
    rows = read_column(methods[0][0], ROW_ID)
    if any(not np.array_equal(rows, read_column(fit, ROW_ID)) for fits in methods for fit in fits):
        raise ValueError("the methods predicted other test rows, or in another order")
    labels = read_column(work.inputs["labels"], "label")[rows]
    predicted = [np.stack([read_column(fit, "prediction") for fit in fits]) for fits in methods]
    ones = np.ones((1, len(labels)))
    scores = [float(metric_of(one, labels, n_classes, metric, ones).mean()) for one in predicted]
    best = int(np.argmax(scores))
    differences = [
        None if place == best else asdict(lead(one, predicted[best], labels, n_classes, metric))
        for place, one in enumerate(predicted)
    ]
    work.out.write(BEST, json_bytes({"scores": scores, "best": best, "differences": differences}))


def _fits(fits: Mapping[int, Step]) -> list[str]:
    return [fits[seed].key for seed in sorted(fits)]


def _role(place: int, seed: int) -> str:
    return f"fit_{place}_{seed}"
