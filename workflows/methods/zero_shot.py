"""What the model itself says of the label words: zero-shot, or in context after demonstrations.

Their logits, or with `label_tokens: whole` the log-likelihoods of the whole words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from workflows.config.compare import Demonstrations
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.base import Method, Need

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


class ContextualSettings(Strict):
    """Settings of `zero-shot` and `icl`."""

    contextual: bool = Field(
        False,
        description="divide label probabilities by those of content-free prompts (contextual calibration, Zhao et "
        "al. 2021)",
    )


class ZeroShot(Method):
    """What the model says of the label words; nothing is trained."""

    name = "zero-shot"
    version = 2  # 2: probabilities of content-free prompts that are too small for float32 are not 0
    needs: ClassVar = frozenset({"head"})
    scores_words = True
    several_layers = False  # states are compared with the head's space
    Settings: ClassVar[type[Strict]] = ContextualSettings

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        """content-free prompts are read where contextual calibration is asked for, or searched."""
        asked = settings.get("contextual", "contextual" in searched)
        return self.needs | {"content_free"} if asked else self.needs

    def fit(self, settings: Any, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        from vocabsem_core.baselines.contextual_calibration import log_prior

        return {"log_prior": log_prior(materials.label_scores(materials.content_free))} if _contextual(settings) else {}

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures) -> Tensor:
        scores = materials.label_scores(states)
        return scores.log_softmax(dim=1) - fitted["log_prior"] if _contextual(settings) else scores

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """None: the shares of content-free prompts are measured."""
        return 0


class Icl(ZeroShot):
    """In-context learning: zero-shot after random, class-balanced demonstrations."""

    name = "icl"
    demonstrations: ClassVar[Demonstrations] = "random"
    space: ClassVar = {"contextual": Domain(choice=(False, True))}


class IclBm25(ZeroShot):
    """In-context learning from the training rows with the most like words; their prompts have none in common."""

    name = "icl-bm25"
    demonstrations: ClassVar[Demonstrations] = "bm25"
    Settings: ClassVar[type[Strict]] = Strict


class IclDense(IclBm25):
    """In-context learning from the training rows with the nearest states."""

    name = "icl-dense"
    demonstrations: ClassVar[Demonstrations] = "dense"


def _contextual(settings: Any) -> bool:
    """Retrieved demonstrations differ from prompt to prompt, so there the setting does not exist."""
    return getattr(settings, "contextual", False)
