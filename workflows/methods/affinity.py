"""Vocabulary affinity inference, uncalibrated: similarity of states to label words' basis rows (paper, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from vocabsem_core.names import Similarity
from workflows.config.strict import Strict
from workflows.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class AffinitySettings(Strict):
    """Settings of `affinity`."""

    similarity: Similarity = Field("cosine", description="of states to basis rows")


class Affinity(Method):
    """Similarity to the label words' basis rows; nothing is trained."""

    name = "affinity"
    needs: ClassVar = frozenset({"basis"})
    several_layers = False  # states are compared with the head\'s space
    Settings = AffinitySettings

    def fit(self, settings: AffinitySettings, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        return {}

    def similarity(self, settings: AffinitySettings) -> Similarity:
        return settings.similarity

    def predict(
        self, settings: AffinitySettings, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures
    ) -> Tensor:
        from vocabsem_core.semantics.affinity import semantic_logits

        return semantic_logits(states, materials.class_basis, settings.similarity)
