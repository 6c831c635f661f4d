"""kNN-LM (Khandelwal et al. 2020), over the task's labels: the model's own choice mixed with its neighbours'."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.neighbours import Neighbours

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures

_SMALLEST = 1e-9  # of a share, so that its logarithm is finite


class KnnLmSettings(Strict):
    """Settings of `knn-lm`."""

    k: int = Field(1024, ge=1, description="neighbours (kNN-LM's own default)")
    interpolation: float = Field(0.25, ge=0, le=1, description="share of the neighbours in the mixture (its default)")
    temperature: float = Field(
        1.0, gt=0, description="divisor of squared distances, which are taken relative to the training states' (ours)"
    )


class KnnLm(Neighbours):
    """Training states are the keys, their labels the values; the model's part is the softmax of its label logits."""

    name = "knn-lm"
    version = 2  # 2: of equally near rows the first
    needs: ClassVar = frozenset({"train", "head"})
    several_layers = False  # states are compared with the head's space
    Settings = KnnLmSettings
    space: ClassVar = {
        "k": Domain(choice=(4, 16, 64, 256, 1024)),
        "interpolation": Domain(uniform=(0.0, 1.0)),
        "temperature": Domain(log_uniform=(0.01, 10.0)),
    }

    def neighbors(
        self, settings: KnnLmSettings, states: Tensor, k: int, materials: TaskFeatures
    ) -> tuple[Tensor, Tensor]:
        """By the distance between states, relative to that of the training states among themselves."""
        from vocabsem_core.baselines.knn import nearest
        from vocabsem_core.baselines.knn_lm import squared_scale

        gaps, rows = nearest(states, materials.train.states, k, "euclidean")
        return gaps / squared_scale(materials.train.states).sqrt(), rows

    def weigh(
        self, settings: KnnLmSettings, gaps: Tensor, votes: Tensor, states: Tensor, materials: TaskFeatures
    ) -> Tensor:
        """The nearer, the more; mixed with the model's own probabilities."""
        from vocabsem_core.baselines.knn_lm import mixed, neighbour_shares

        shares = neighbour_shares(gaps, votes, len(materials.labels), settings.temperature)
        model = materials.label_scores(states).softmax(dim=1)
        return mixed(model, shares, settings.interpolation).clamp_min(_SMALLEST).log()
