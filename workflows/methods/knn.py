"""k nearest training states, exact, by majority vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from workflows.config import Strict
from workflows.methods.base import Method
from workflows.space import Domain

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.materials import Materials


_NO_VOTE = 1e-6  # the share of a class without a vote, so that its logarithm is finite


class KnnSettings(Strict):
    """Settings of `knn`."""

    k: int = Field(16, ge=1, description="neighbours that vote")
    distance: Literal["cosine", "euclidean"] = Field("cosine", description="between states")


class Knn(Method):
    """Votes of the nearest training states."""

    name = "knn"
    needs: ClassVar = frozenset({"train"})
    Settings = KnnSettings
    space: ClassVar = {
        "k": Domain(choice=(1, 2, 4, 8, 16, 32, 64)),
        "distance": Domain(choice=("cosine", "euclidean")),
    }
    sources = ("vocabsem_core.retrieval",)

    def fit(self, settings: KnnSettings, materials: Materials, seed: int) -> dict[str, Tensor]:
        """Nothing is trained and nothing copied: the training states are in the store already."""
        return {}

    def predict(self, settings: KnnSettings, fitted: dict[str, Tensor], states: Tensor, materials: Materials) -> Tensor:
        from vocabsem_core.retrieval import knn_votes

        train = materials.train
        votes = knn_votes(states, train.states, train.labels, len(materials.labels), settings.k, settings.distance)
        return votes.clamp_min(_NO_VOTE).log()  # scores are logits: their softmax gives the shares back
