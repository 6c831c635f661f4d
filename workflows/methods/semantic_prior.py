"""Semantic prior: logistic regression from the vocabulary's meaning of the labels (ours; docs/few-labels.md).

Its settings need no search: with few rows a search has none to choose by.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from vocabsem_core.names import PriorRows
from workflows.config.strict import Strict
from workflows.methods.base import Method, Need
from workflows.methods.label_rows import SHRINKAGE, needs_of_rows

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


_ROWS: frozenset[Need] = frozenset({"train", "unlabelled"})


class SemanticPriorSettings(Strict):
    """Settings of `semantic-prior`."""

    targets: PriorRows = Field(
        "basis",
        description="where the classes' weights are expected: at the label words' basis rows, their rows of the head "
        "or of the input embedding; or, to see what the words are worth, at random orthogonal directions, at another "
        "label's row (shuffled), at rows of tokens drawn from the vocabulary (unrelated), or at zero (none: a linear "
        "probe)",
    )
    shrinkage: float = SHRINKAGE
    penalty: float = Field(
        0.1, gt=0, description="L2 of what is learned beside the prior, on standardised states, a dimension"
    )


class SemanticPrior(Method):
    """Logistic regression whose weights are expected at the label words' rows."""

    name = "semantic-prior"
    needs: ClassVar = _ROWS | {"spectrum"}
    holds_out = False
    portable = True
    Settings = SemanticPriorSettings

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        return needs_of_rows(settings, searched) | _ROWS

    def draws(self, settings: Mapping[str, Any], searched: Collection[str]) -> bool:
        """Unrelated tokens are drawn by the seed."""
        return "targets" in searched or settings.get("targets") == "unrelated"

    def fit(self, settings: SemanticPriorSettings, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        from vocabsem_core.calibration.prior import fit_prior, prior_rows

        centre, deviation = materials.moments
        rows = self._rows(settings, materials)
        if settings.targets != "none":
            rows = prior_rows(rows, materials.unlabelled, centre)
        train = materials.train
        return fit_prior(train.states, train.labels, rows, centre, deviation, settings.penalty)

    def predict(
        self, settings: SemanticPriorSettings, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures
    ) -> Tensor:
        from vocabsem_core.baselines.linear import probe_logits

        return probe_logits(states, fitted)

    def _rows(self, settings: SemanticPriorSettings, materials: TaskFeatures) -> Tensor:
        if settings.targets == "shuffled":
            return materials.label_rows("basis", settings.shrinkage).roll(1, dims=0)
        if settings.targets == "unrelated":
            return materials.unrelated_rows(settings.shrinkage)
        if settings.targets == "none":
            return materials.moments[0].new_zeros(len(materials.labels), materials.width)
        return materials.label_rows(settings.targets, settings.shrinkage)
