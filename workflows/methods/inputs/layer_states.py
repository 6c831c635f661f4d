"""What a method sees of a task at one layer: states in the space where a layer's basis stands, and its label rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from vocabsem_core.names import LabelRows
from workflows.methods.inputs.states import StoredRows, TaskFeatures


@dataclass(frozen=True, kw_only=True)
class LayerFeatures(TaskFeatures):
    """A task's states at one layer, held in memory, with what stands for its labels there.

    Attributes:
        seen_train, seen_test: the states, [n, d], float32.
        rows: the label rows [c, d] of the layer's basis by shrinkage; 0 is the paper's.
    """

    seen_train: Tensor
    seen_test: Tensor
    rows: Callable[[float], Tensor]

    def _stored(self, rows: np.ndarray) -> StoredRows:
        return StoredRows([[self.seen_train.numpy()]], rows)

    def _states(self, role: str) -> Tensor:
        return {"train": self.seen_train, "test": self.seen_test}[role]

    def label_rows(self, kind: LabelRows, shrinkage: float) -> Tensor:
        """Those of the layer's basis, whatever the kind."""
        return self.rows(shrinkage)

    @property
    def class_basis(self) -> Tensor:
        return self.rows(0.0)
