"""kNN-Prompting (Xu et al. 2023): neighbours by the model's whole next-token distribution, from stored states."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from workflows.config import Strict
from workflows.methods.base import Method
from workflows.space import Domain

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.materials import Materials

_NO_VOTE = 1e-6  # the share of a class without a vote, so that its logarithm is finite


class KnnPromptingSettings(Strict):
    """Settings of `knn-prompting`."""

    k: int = Field(3, ge=1, description="anchors that vote (the original's default)")


class KnnPrompting(Method):
    """Every training row is an anchor; prompts have no demonstrations before them, unlike the original's."""

    name = "knn-prompting"
    needs: ClassVar = frozenset({"train", "head"})
    several_layers = False  # states are compared with the head\'s space
    Settings = KnnPromptingSettings
    space: ClassVar = {"k": Domain(choice=(1, 2, 3, 5, 9, 17, 33, 65))}
    sources = ("vocabsem_core.knn_prompting", "vocabsem_core.retrieval", "vocabsem_core.heads")

    def fit(self, settings: KnnPromptingSettings, materials: Materials, seed: int) -> dict[str, Tensor]:
        """Nothing is trained and nothing copied: the training states are in the store already."""
        return {}

    def predict(
        self, settings: KnnPromptingSettings, fitted: dict[str, Tensor], states: Tensor, materials: Materials
    ) -> Tensor:
        from vocabsem_core.knn_prompting import divergences, votes

        train = materials.train
        gaps = divergences(states, train.states, materials.head)
        return votes(gaps, train.labels, len(materials.labels), settings.k).clamp_min(_NO_VOTE).log()
