"""Zero-shot: the model's own logits of the label words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from workflows.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.materials import Materials


class ZeroShot(Method):
    """Classic logits of the label words; nothing is trained."""

    name = "zero-shot"
    needs: ClassVar = frozenset({"head"})
    several_layers = False  # states are compared with the head\'s space
    sources = ("vocabsem_core.heads",)

    def fit(self, settings: Any, materials: Materials, seed: int) -> dict[str, Tensor]:
        return {}

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: Materials) -> Tensor:
        """A label of several tokens has the mean of their logits."""
        return materials.class_mean(materials.label_head.logits(states), dim=1)
