"""The ways of the classes through the layers, in one plane that is the same for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vocabsem_core.baselines.centroid import class_means
from vocabsem_core.calibration.modules import residual
from vocabsem_core.semantics.centring import centred_rows
from workflows.methods.inputs.layer_states import LayerFeatures


class Plane:
    """The plane in which the label rows lie furthest apart, and what was seen in it.

    Rows and states are seen from their means and made unit vectors, as the cosine sees them. With two labels the rows
    lie on a line; the other axis is then the first direction of the last layer's states beside it.
    """

    def __init__(self, rows: Tensor) -> None:
        """`rows`: of the labels, [c, d], head side."""
        self._rows = functional.normalize(centred_rows(rows).double(), dim=1)
        self._means: dict[str, tuple[Tensor, Tensor | None]] = {}

    def add(self, layer: str, features: LayerFeatures, calibrator: Mapping[str, Tensor]) -> None:
        """A layer's training states of the head's space; with what calibration learned, calibrated ones too."""
        train = replace(features, hold_out=False).train
        centred = train.states - train.states.mean(dim=0)
        before = class_means(functional.normalize(centred, dim=1), train.labels, len(features.labels))
        after = None
        if calibrator:
            moved = residual(train.states - calibrator["centre"], calibrator)
            after = class_means(functional.normalize(moved, dim=1), train.labels, len(features.labels))
        self._means[layer] = before, after

    def document(self) -> dict[str, Any]:
        """Places [class][x, y] of the label rows, and of each layer's class means before and after calibration."""
        axes = self._axes()

        def places(points: Tensor | None) -> list[list[float]] | None:
            return None if points is None else (points.double() @ axes).tolist()

        return {
            "rows": places(self._rows),
            "layers": {layer: [places(one) for one in both] for layer, both in self._means.items()},
        }

    def _axes(self) -> Tensor:
        """[d, 2], orthonormal."""
        first = torch.linalg.svd(self._rows - self._rows.mean(dim=0), full_matrices=False).Vh
        if len(self._rows) > 2:
            return first[:2].T
        last = list(self._means.values())[-1][0].double()
        beside = last - (last @ first[0]).unsqueeze(1) * first[0]
        second = torch.linalg.svd(beside, full_matrices=False).Vh[0]
        return torch.stack([first[0], second], dim=1)
