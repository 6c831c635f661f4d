"""Vocabulary affinity of centred states: no label is read (ours; docs/few-labels.md)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from vocabsem_core.names import Centre, LabelRows, Similarity
from workflows.config.strict import Strict
from workflows.methods.base import Method, Need
from workflows.methods.label_rows import CENTRE, SHRINKAGE, needs_of_centre, needs_of_rows

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class CentredAffinitySettings(Strict):
    """Settings of `affinity-centred`."""

    targets: LabelRows = Field(
        "basis",
        description="what states are compared with: the label words' basis rows, their rows of the head or of the "
        "input embedding, or random orthogonal directions (to see what the words are worth)",
    )
    shrinkage: float = SHRINKAGE
    centre: Centre = CENTRE
    similarity: Similarity = Field("cosine", description="of centred states to targets")


class CentredAffinity(Method):
    """Similarity of states, seen from their mean, to the label words' rows, seen from theirs; nothing is trained."""

    name = "affinity-centred"
    needs: ClassVar = frozenset({"spectrum", "unlabelled"})
    several_layers = False  # states are compared with the head's space
    portable = True
    Settings = CentredAffinitySettings

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        return needs_of_rows(settings, searched) | needs_of_centre(settings, searched)

    def fit(self, settings: CentredAffinitySettings, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        from vocabsem_core.semantics.centring import centred_rows

        rows = materials.label_rows(settings.targets, settings.shrinkage)
        return {"targets": centred_rows(rows), "centre": materials.centre(settings.centre)}

    def similarity(self, settings: Any) -> Similarity:
        return settings.similarity

    def predict(
        self, settings: CentredAffinitySettings, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures
    ) -> Tensor:
        from vocabsem_core.semantics.affinity import semantic_logits

        return semantic_logits(states - fitted["centre"], fitted["targets"], settings.similarity)

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """None: the centre is measured."""
        return 0
