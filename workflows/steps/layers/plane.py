"""The ways of the classes through the layers, in one plane that is the same for all layers.

Rows and states are seen from their means and made unit vectors, as the cosine sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from vocabsem_core.baselines.centroid import class_means
from vocabsem_core.calibration.modules import residual
from vocabsem_core.semantics.centring import centred_rows

if TYPE_CHECKING:
    from workflows.methods.inputs.layer_states import LayerFeatures
    from workflows.steps.layers.spaces import Vocabulary


def class_ways(vocabulary: Vocabulary, features: LayerFeatures, calibrator: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a layer's training states of the head's space, [c, d] each: the label `rows`, the class means `before`
    calibration, and with what calibration learned those `after` it."""
    train, classes = replace(features, hold_out=False).train, len(features.labels)

    def means(states: Tensor) -> Tensor:
        return class_means(functional.normalize(states, dim=1), train.labels, classes)

    rows = functional.normalize(centred_rows(vocabulary.label_rows("head", "head", 1.0)).double(), dim=1)
    found = {"rows": rows, "before": means(train.states - train.states.mean(dim=0))}
    if calibrator:
        found["after"] = means(residual(train.states - calibrator["centre"], calibrator))
    return found


def plane_of(ways: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Places [class][x, y] in the plane in which the label rows lie furthest apart.

    Args:
        ways: what `class_ways` gives, by layer, `head` last.

    Returns `rows`, and `layers`: for each the class means before and after calibration (None where there is none).
    """
    last = list(ways.values())[-1]
    axes = _axes(last["rows"], last["before"])

    def places(points: Tensor | None) -> list[list[float]] | None:
        return None if points is None else (points.double() @ axes).tolist()

    layers = {layer: [places(one.get(side)) for side in ("before", "after")] for layer, one in ways.items()}
    return {"rows": places(last["rows"]), "layers": layers}


def _axes(rows: Tensor, last: Tensor) -> Tensor:
    """[d, 2], orthonormal. Two rows lie on a line: the other axis is the first direction of `last` beside it."""
    first = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh
    if len(rows) > 2:
        return first[:2].T
    beside = last.double() - (last.double() @ first[0]).unsqueeze(1) * first[0]
    second = torch.linalg.svd(beside, full_matrices=False).Vh[0]
    return torch.stack([first[0], second], dim=1)
