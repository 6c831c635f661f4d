"""Semantic calibration: a small module that moves states to their labels' basis rows (paper, section 3.3).

`calibration` is ours: residual and low-rank, starts as the identity, cross-entropy over the task's labels, learned
temperature, early stopping. `calibration-paper` is the paper's module as far as the paper states it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from vocabsem_core.errors import InputError
from vocabsem_core.names import Loss, Similarity, Targets
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.base import Fitted, Method, Need, Watch

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from torch import Tensor

    from vocabsem_core.calibration.modules import CalibrationSettings
    from workflows.methods.inputs.states import TaskFeatures


class ResidualSettings(Strict):
    """Settings of `calibration`."""

    rank: int = Field(64, ge=1, description="hidden width")
    targets: Targets = Field(
        "basis",
        description="what states are moved to: the label words' basis rows, their rows of the head or of the input "
        "embedding, the classes' mean states, random orthogonal directions, or rows that start as the basis and are "
        "learned (to see what the basis is worth)",
    )
    similarity: Similarity = Field("cosine", description="of calibrated states to their targets")
    temperature: float = Field(0.1, gt=0, description="divisor of the similarities at the start; learned")
    dropout: float = Field(0.3, ge=0, lt=1, description="on hidden units")
    input_dropout: float = Field(
        0.0, ge=0, lt=1, description="on the input states; with all layers use a high value: 0.8"
    )
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="of AdamW")
    batch_size: int = Field(128, ge=1, description="rows per step")
    epochs: int = Field(100, ge=1, description="maximum number of epochs")
    patience: int = Field(10, ge=1, description="epochs without a lower validation loss before it stops")


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


class Calibration(Method):
    """Residual low-rank module, cross-entropy over the task's labels, early stopping (ours)."""

    name = "calibration"
    version = 2  # 2: each use of a seed has a random stream of its own, so that fits side by side do not mix
    needs: ClassVar = frozenset({"train", "basis"})
    seeded = True
    portable = True
    has_epochs = True
    uses_gpu = True
    Settings: ClassVar[type[Strict]] = ResidualSettings
    space: ClassVar = {
        "learning_rate": Domain(log_uniform=(3e-4, 3e-3)),
        "weight_decay": Domain(log_uniform=(1e-2, 1.0)),
        "rank": Domain(choice=(16, 32, 64, 128)),
        "dropout": Domain(choice=(0.0, 0.1, 0.3, 0.5)),
    }

    def fit(self, settings: Any, materials: TaskFeatures, seed: int) -> dict[str, Tensor]:
        (found,) = self.fit_many([(settings, seed)], materials)
        if isinstance(found, InputError):
            raise found
        return found.tensors

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        """Other targets than the basis are other inputs."""
        kinds = {"head", "embedding"} if "targets" in searched else {settings.get("targets")}
        return self.needs | {kind for kind in ("head", "embedding") if kind in kinds}

    def structure(self, settings: Any) -> Hashable:
        from vocabsem_core.calibration.batched_training import structure

        return (self.targets_of(settings), self.compared_with(settings), *structure(self.core_settings(settings)))

    def fit_bytes(self, settings: Any, materials: TaskFeatures) -> int:
        from vocabsem_core.calibration.batched_training import lane_bytes

        classes, width = materials.class_basis.shape
        core = self.core_settings(settings)
        rows = len(materials.other_basis.rows) if core.loss == "vocabulary" else 0
        return lane_bytes(core, width, classes + rows, materials.width)

    def fit_many(
        self, jobs: Sequence[tuple[Any, int]], materials: TaskFeatures, watch: Watch | None = None
    ) -> list[Fitted | InputError]:
        from vocabsem_core.calibration.batch import Lane
        from vocabsem_core.calibration.batched_training import fit_pack

        lanes = [Lane(self.core_settings(settings), seed) for settings, seed in jobs]
        first, vocabulary = jobs[0][0], None
        if lanes[0].settings.loss == "vocabulary":
            vocabulary = materials.other_head if self.targets_of(first) == "head" else materials.other_basis
        targets = self._targets(self.targets_of(first), materials)
        compared = self._targets(self.compared_with(first)[0], materials)
        done = fit_pack(
            materials.stored_train,
            materials.stored_validation,
            targets.to(materials.device),
            lanes,
            vocabulary.to(materials.device) if vocabulary is not None else None,
            watch,
        )
        return [
            one
            if isinstance(one, InputError)
            else Fitted({**one.weights, "targets": compared}, one.validation_loss, one.epochs)
            for one in done
        ]

    def targets_of(self, settings: Any) -> str:
        """The kind of targets in training."""
        return settings.targets

    def compared_with(self, settings: Any) -> tuple[str, Similarity]:
        """The kind of targets in prediction, and the similarity to them."""
        return self.targets_of(settings), settings.similarity

    def _targets(self, kind: str, materials: TaskFeatures) -> Tensor:
        """What the states of each class are moved to, [c, d]."""
        from vocabsem_core.calibration.targets import as_wide_as, centred_means, random_orthogonal

        basis = materials.class_basis
        if kind == "head":
            return materials.class_mean(materials.label_head.weight, dim=0)
        if kind == "embedding":
            return as_wide_as(materials.class_embedding, basis)
        if kind == "class-means":
            states = materials.train.states[:, : basis.shape[1]]
            return centred_means(states, materials.train.labels, len(materials.labels))
        return random_orthogonal(basis) if kind == "random" else basis

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures) -> Tensor:
        from vocabsem_core.calibration.modules import calibrated_logits

        core = replace(self.core_settings(settings), similarity=self.compared_with(settings)[1])
        return calibrated_logits(states, fitted["targets"], core, fitted)

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """Without the standardisation and the targets, which are measured and not trained."""
        measured = ("mean", "deviation", "targets")
        return sum(tensor.numel() for name, tensor in fitted.items() if name not in measured)

    def core_settings(self, settings: Any) -> CalibrationSettings:
        from vocabsem_core.calibration.modules import CalibrationSettings

        own = settings.model_dump(exclude={"targets"})
        learned = settings.targets == "learned"
        return CalibrationSettings(
            module="residual", loss="labels", learn_temperature=True, learn_targets=learned, **own
        )


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
        """Without the temperature and the targets, which are fixed."""
        return sum(tensor.numel() for name, tensor in fitted.items() if name not in ("log_temperature", "targets"))

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        """A product with the head needs the head."""
        kinds = ("training", "inference")
        product = any(kind in searched or settings.get(kind) == "mm" for kind in kinds)
        return self.needs | ({"head"} if product else set())

    def targets_of(self, settings: Any) -> str:
        return "head" if settings.training == "mm" else "basis"

    def compared_with(self, settings: Any) -> tuple[str, Similarity]:
        return ("head", "dot") if settings.inference == "mm" else ("basis", settings.similarity)

    def core_settings(self, settings: Any) -> CalibrationSettings:
        from vocabsem_core.calibration.modules import CalibrationSettings

        own = settings.model_dump(exclude={"training", "inference", "similarity"})
        similarity: Similarity = "dot" if settings.training == "mm" else settings.similarity
        return CalibrationSettings(
            module="paper", similarity=similarity, learn_temperature=False, patience=None, dropout=0.0, **own
        )
