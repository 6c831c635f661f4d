"""Methods that let near training rows vote: which rows are near is found once for all settings that only weigh them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

from workflows.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures

_NO_VOTE = 1e-6  # the share of a class without a vote, so that its logarithm is finite


class Neighbours(Method):
    """Nothing is trained and nothing copied: the training states are in the store already. Settings have a `k`.

    A method says which rows are near and how they are weighed; what it predicts follows.
    """

    def fit(self, settings: Any, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def index_key(self, settings: Any) -> Hashable:
        """What of the settings decides which training rows are near."""
        return ()

    @abstractmethod
    def neighbors(self, settings: Any, states: Tensor, k: int, materials: TaskFeatures) -> tuple[Tensor, Tensor]:
        """Distances and row numbers of the k nearest training rows, [n, k], in the order of `knn.smallest`."""

    def weigh(self, settings: Any, gaps: Tensor, votes: Tensor, states: Tensor, materials: TaskFeatures) -> Tensor:
        """Class scores [n, classes] by the neighbours' distances and classes, [n, k]. The default: one vote each."""
        from vocabsem_core.baselines.knn import shares

        counted = shares(votes, len(materials.labels))
        return counted.clamp_min(_NO_VOTE).log()  # scores are logits: their softmax gives the shares back

    @final
    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures) -> Tensor:
        (scores,) = self.predict_many([(settings, fitted)], states, materials)
        return scores

    def predict_many(
        self, jobs: Sequence[tuple[Any, dict[str, Tensor]]], states: Tensor, materials: TaskFeatures
    ) -> Iterator[Tensor]:
        """One search for neighbours of each kind, by the largest k."""
        most: dict[Hashable, int] = {}
        for settings, _ in jobs:
            most[self.index_key(settings)] = max(settings.k, most.get(self.index_key(settings), 0))
        found: dict[Hashable, tuple[Tensor, Tensor]] = {}
        for settings, _ in jobs:
            kind = self.index_key(settings)
            if kind not in found:
                found[kind] = self.neighbors(settings, states, most[kind], materials)
            gaps, rows = (part[:, : settings.k] for part in found[kind])
            yield self.weigh(settings, gaps, materials.train.labels[rows], states, materials)
