"""What a `layers` artifact holds: a shard for each layer, and in it a row for each basis."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestration.store.artifacts import Artifact

if TYPE_CHECKING:
    from torch import Tensor

BY_ROWS = ("affinity", "affinity-centred", "semantic-prior")  # of each basis
BY_STATES = ("linear-probe", "knn")  # the same for all bases of a space
CALIBRATED = "calibration"
AFTER = "-calibrated"  # what is read of calibrated states
CLUSTERS = ("clusters", f"clusters{AFTER}")
NEIGHBOURS = "knn-"  # and their number
_TENSORS = ("predictions", "fitted", "ways")


@dataclass(frozen=True)
class Reading:
    """What was read of one layer by one basis.

    Attributes:
        record: numbers, as JSON: see `scores.fill_scores`.
        predictions: class or cluster numbers of the test rows, by what gave them.
        fitted: what calibration learned; empty where it was not asked for.
        ways: see `plane.class_ways`; empty for other bases than `head`.
    """

    record: dict[str, Any]
    predictions: dict[str, Tensor]
    fitted: dict[str, Tensor]
    ways: dict[str, Tensor]


def table_of(readings: Sequence[Reading]) -> Any:
    """The table of a layer: numbers as JSON, tensors as safetensors."""
    from safetensors.torch import save

    from orchestration.store import arrow

    columns: dict[str, Sequence[Any]] = {"record": [json.dumps(one.record) for one in readings]}
    for name in _TENSORS:
        columns[name] = [
            save({key: value.clone().contiguous() for key, value in getattr(one, name).items()}) for one in readings
        ]
    return arrow.table_of(range(len(readings)), columns)


def readings_of(artifact: Artifact) -> Iterator[Reading]:
    """Every layer's rows, in the order of layers and bases."""
    from safetensors.torch import load

    from orchestration.store.arrow import read_table

    for path in artifact.shards():
        for row in read_table(path).to_pylist():
            yield Reading(json.loads(row["record"]), **{name: load(row[name]) for name in _TENSORS})
