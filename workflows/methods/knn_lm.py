"""kNN-LM (Khandelwal et al. 2020), over the task's labels: the model's own choice mixed with its neighbours'."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from workflows.config import Strict
from workflows.methods.base import Method
from workflows.space import Domain

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.materials import Materials

_SMALLEST = 1e-9  # of a share, so that its logarithm is finite


class KnnLmSettings(Strict):
    """Settings of `knn-lm`."""

    k: int = Field(1024, ge=1, description="neighbours (kNN-LM's own default)")
    interpolation: float = Field(0.25, ge=0, le=1, description="share of the neighbours in the mixture (its default)")
    temperature: float = Field(
        1.0, gt=0, description="divisor of squared distances, which are taken relative to the training states' (ours)"
    )


class KnnLm(Method):
    """Training states are the keys, their labels the values; the model's part is the softmax of its label logits."""

    name = "knn-lm"
    needs: ClassVar = frozenset({"train", "head"})
    several_layers = False  # states are compared with the head\'s space
    Settings = KnnLmSettings
    space: ClassVar = {
        "k": Domain(choice=(4, 16, 64, 256, 1024)),
        "interpolation": Domain(uniform=(0.0, 1.0)),
        "temperature": Domain(log_uniform=(0.01, 10.0)),
    }
    sources = ("vocabsem_core.knn_lm", "vocabsem_core.retrieval", "vocabsem_core.heads")

    def fit(self, settings: KnnLmSettings, materials: Materials, seed: int) -> dict[str, Tensor]:
        """Nothing is trained and nothing copied: the training states are in the store already."""
        return {}

    def predict(
        self, settings: KnnLmSettings, fitted: dict[str, Tensor], states: Tensor, materials: Materials
    ) -> Tensor:
        from vocabsem_core.knn_lm import mixed, neighbour_shares

        train, classes = materials.train, len(materials.labels)
        near = neighbour_shares(states, train.states, train.labels, classes, settings.k, settings.temperature)
        model = materials.class_mean(materials.label_head.logits(states), dim=1).softmax(dim=1)
        return mixed(model, near, settings.interpolation).clamp_min(_SMALLEST).log()
