"""Nearest class mean of the training states (Hidden Calibration, arXiv 2406.16535)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from workflows.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class Centroid(Method):
    """The class whose mean state is nearest, by Euclidean distance."""

    name = "centroid"
    needs: ClassVar = frozenset({"train"})
    portable = True

    def fit(self, settings: Any, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        from vocabsem_core.baselines.centroid import class_means

        return {"centroids": class_means(materials.train.states, materials.train.labels, len(materials.labels))}

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures) -> Tensor:
        from vocabsem_core.baselines.centroid import centroid_scores

        return centroid_scores(states, fitted["centroids"])
