"""kNN-Prompting (Xu et al. 2023): neighbours by the model's whole next-token distribution, from stored states."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.neighbours import Neighbours

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class KnnPromptingSettings(Strict):
    """Settings of `knn-prompting`."""

    k: int = Field(3, ge=1, description="anchors that vote (the original's default)")


class KnnPrompting(Neighbours):
    """Every training row is an anchor; prompts have no demonstrations before them, unlike the original's."""

    name = "knn-prompting"
    version = 2  # 2: of equally near rows the first
    needs: ClassVar = frozenset({"train", "head"})
    several_layers = False  # states are compared with the head's space
    Settings = KnnPromptingSettings
    space: ClassVar = {"k": Domain(choice=(1, 2, 3, 5, 9, 17, 33, 65))}

    def neighbors(
        self, settings: KnnPromptingSettings, states: Tensor, k: int, materials: TaskFeatures
    ) -> tuple[Tensor, Tensor]:
        """By the divergence of their distributions."""
        from vocabsem_core.baselines.knn import smallest
        from vocabsem_core.baselines.knn_prompting import divergences

        return smallest(divergences(states, materials.train.states, materials.head), k)
