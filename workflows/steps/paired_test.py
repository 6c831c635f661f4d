"""The step that compares a method with the reference method, item by item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.files import json_bytes
from workflows.steps.code import code_of

VERSUS = "versus.json"


def versus_step(
    where: str, fits: Mapping[int, Step], reference: Mapping[int, Step], labels: Step, n_classes: int, metric: str
) -> Step:
    """Like the score it reads test labels, after all settings were chosen.

    Each comparison is a step of its own: Holm's correction is made when they are read, so that one method more reruns
    none of them.
    """
    return Step(
        name="versus",
        label=f"versus {where}",
        version=3,  # 3: macro-F1's interval leaves out the classes that a draw has not
        run="workflows.steps.paired_test:fill_versus",
        identity={"classes": n_classes, "metric": metric, "seeds": sorted(fits), "reference_seeds": sorted(reference)},
        inputs={
            "labels": labels,
            **{f"fit_{seed}": step for seed, step in fits.items()},
            **{f"reference_{seed}": step for seed, step in reference.items()},
        },
        sources=code_of(fill_versus),
    )


def fill_versus(work: StepContext) -> None:
    """versus.json: the lead over the reference with its interval and p, and the exact McNemar test of each seed."""
    import numpy as np

    from orchestration.store.arrow import ROW_ID
    from vocabsem_core.statistics.paired_tests import in_pairs, lead, mcnemar
    from workflows.methods.inputs.states import read_column

    identity = work.identity
    own, other = identity["seeds"], identity["reference_seeds"]
    fits = [work.inputs[f"fit_{seed}"] for seed in own]
    references = [work.inputs[f"reference_{seed}"] for seed in other]
    rows = read_column(fits[0], ROW_ID)
    if any(not np.array_equal(rows, read_column(one, ROW_ID)) for one in (*fits, *references)):
        raise ValueError("the two methods predicted other test rows, or in another order")
    labels = read_column(work.inputs["labels"], "label")[rows]
    first, second = (np.stack([read_column(one, "prediction") for one in side]) for side in (fits, references))
    found = lead(first, second, labels, identity["classes"], identity["metric"])
    pairs = enumerate(zip(*in_pairs(first, second), strict=True))
    by_seed = [
        {"seed": own[place % len(own)], "reference_seed": other[place % len(other)], **asdict(mcnemar(*pair, labels))}
        for place, pair in pairs
    ]
    work.out.write(VERSUS, json_bytes({**asdict(found), "by_seed": by_seed}))
