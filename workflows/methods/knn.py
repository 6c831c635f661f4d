"""k nearest training states, exact, by majority vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from vocabsem_core.names import Distance
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.neighbours import Neighbours

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class KnnSettings(Strict):
    """Settings of `knn`."""

    k: int = Field(16, ge=1, description="neighbours that vote")
    distance: Distance = Field("cosine", description="between states")


class Knn(Neighbours):
    """Votes of the nearest training states."""

    name = "knn"
    version = 2  # 2: of equally near rows the first
    needs: ClassVar = frozenset({"train"})
    Settings = KnnSettings
    space: ClassVar = {
        "k": Domain(choice=(1, 2, 4, 8, 16, 32, 64)),
        "distance": Domain(choice=("cosine", "euclidean")),
    }

    def index_key(self, settings: KnnSettings) -> str:
        """The distance."""
        return settings.distance

    def neighbors(
        self, settings: KnnSettings, states: Tensor, k: int, materials: TaskFeatures
    ) -> tuple[Tensor, Tensor]:
        """By the distance between states."""
        from vocabsem_core.baselines.knn import nearest

        return nearest(states, materials.train.states, k, settings.distance)
