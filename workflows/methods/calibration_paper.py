"""The paper's calibration: its module and its training, as far as the paper states them (paper, section 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from vocabsem_core.names import Loss, Similarity
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.base import Need
from workflows.methods.calibration import Calibration

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping

    from torch import Tensor

    from vocabsem_core.calibration.modules import CalibrationSettings
    from vocabsem_core.calibration.vocabulary import Vocabulary
    from workflows.methods.inputs.states import TaskFeatures


class PaperSettings(Strict):
    """Settings of `calibration-paper`; what the paper does not state is marked ours."""

    loss: Loss = Field(
        "vocabulary",
        description="cross-entropy over all bases, over the task's labels, or 1 - cosine to the true basis",
    )
    similarity: Similarity = Field("cosine", description="of calibrated states to basis rows")
    training: Literal["sm", "mm"] = Field(
        "sm", description="logits of the loss: sm, similarity to the basis; mm, product with the head (paper, table 6)"
    )
    inference: Literal["sm", "mm"] = Field("sm", description="logits of the prediction, of the same two kinds")
    temperature: float = Field(1.0, gt=0, description="divisor of the similarities; the paper states none")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW; the paper states neither (ours)")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW (ours)")
    batch_size: int = Field(256, ge=1, description="rows per step (paper)")
    epochs: int = Field(100, ge=1, description="always all of them (paper)")

    @model_validator(mode="after")
    def _sm_gt_is_a_similarity(self) -> PaperSettings:
        if self.loss == "sm-gt" and self.training == "mm":
            raise ValueError("training mm: loss sm-gt is a similarity to the basis; take training: sm")
        return self


class PaperCalibration(Calibration):
    """The paper's module and training."""

    name = "calibration-paper"
    version = 3  # 3: the sum over the whole vocabulary is estimated where that is as good (`calibration.vocabulary`)
    Settings = PaperSettings
    needs: ClassVar = frozenset({"train", "basis"})
    several_layers = False
    space: ClassVar = {
        "learning_rate": Domain(log_uniform=(1e-4, 1e-2)),
        "weight_decay": Domain(log_uniform=(1e-4, 1e-1)),
    }

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """Without the centre, the temperature and the targets, which are fixed."""
        fixed = ("centre", "log_temperature", "targets")
        return sum(tensor.numel() for name, tensor in fitted.items() if name not in fixed)

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        """A product with the head needs the head."""
        kinds = ("training", "inference")
        product = any(kind in searched or settings.get(kind) == "mm" for kind in kinds)
        return self.needs | ({"head"} if product else set())

    def seen_as(self, settings: Any) -> Hashable:
        return settings.training

    def targets(self, settings: Any) -> str:
        return "head" if settings.inference == "mm" else "basis"

    def similarity(self, settings: Any) -> Similarity:
        return "dot" if settings.inference == "mm" else settings.similarity

    def centre_of(self, settings: Any, materials: TaskFeatures) -> Tensor | None:
        return None

    def rows_trained(self, settings: Any, materials: TaskFeatures) -> Tensor:
        return _rows(settings.training == "mm", materials)

    def rows_compared(self, settings: Any, materials: TaskFeatures) -> Tensor:
        return _rows(settings.inference == "mm", materials)

    def vocabulary(self, settings: Any, materials: TaskFeatures) -> Vocabulary | None:
        if settings.loss != "vocabulary":
            return None
        return materials.other_head if settings.training == "mm" else materials.other_basis

    def core_settings(self, settings: Any) -> CalibrationSettings:
        from vocabsem_core.calibration.modules import CalibrationSettings

        own = settings.model_dump(exclude={"training", "inference", "similarity"})
        similarity: Similarity = "dot" if settings.training == "mm" else settings.similarity
        return CalibrationSettings(
            module="paper", similarity=similarity, learn_temperature=False, patience=None, dropout=0.0, **own
        )


def _rows(product: bool, materials: TaskFeatures) -> Tensor:
    """The label words' rows of the head, for a product with it, or of the paper's basis, [c, d]."""
    return materials.label_rows("head", shrinkage=0.0) if product else materials.class_basis


class CentredPaperCalibration(PaperCalibration):
    """The paper's module and training on states seen from the mean of the training rows (ours)."""

    name = "calibration-paper-centred"
    version = 1
    needs: ClassVar = PaperCalibration.needs | {"unlabelled"}

    def centre_of(self, settings: Any, materials: TaskFeatures) -> Tensor:
        return materials.centre("training")
