"""Ray Train's trainer of torch models, without the process that it starts for data sets of Ray Data: we have none."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback


class Trainer(TorchTrainer):
    """It starts two workers in 21 s where `TorchTrainer` takes 25 (two cores, both busy with imports)."""

    def _create_default_callbacks(self) -> list[Any]:
        usual = super()._create_default_callbacks()  # type: ignore[misc]  # of the second of Ray's two trainers
        return [one for one in usual if not isinstance(one, DatasetsCallback)]
