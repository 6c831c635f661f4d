"""Linear probe: logistic regression on the states."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class LinearProbeSettings(Strict):
    """Settings of `linear-probe`."""

    inverse_penalty: float = Field(0.01, gt=0, description="scikit-learn's C: smaller is stronger L2")


class LinearProbe(Method):
    """Logistic regression on standardised states."""

    name = "linear-probe"
    needs: ClassVar = frozenset({"train"})
    portable = True
    Settings = LinearProbeSettings
    space: ClassVar = {"inverse_penalty": Domain(log_uniform=(1e-4, 1.0))}

    def fit(self, settings: LinearProbeSettings, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        from vocabsem_core.baselines.linear_probe import fit_probe

        return fit_probe(
            materials.train.states, materials.train.labels, len(materials.labels), settings.inverse_penalty
        )

    def predict(
        self, settings: LinearProbeSettings, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures
    ) -> Tensor:
        from vocabsem_core.baselines.linear import probe_logits

        return probe_logits(states, fitted)
