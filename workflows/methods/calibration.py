"""Semantic calibration: a small module that moves states to their labels' basis rows (paper, section 3.3).

`calibration` is ours: residual and low-rank, starts as the identity, cross-entropy over the task's labels, learned
temperature, early stopping. `calibration-paper` is the paper's module as far as the paper states it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from vocabsem_core.errors import InputError
from workflows.config import Strict
from workflows.methods.base import Fitted, Method, Watch
from workflows.space import Domain

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from torch import Tensor

    from vocabsem_core.calibration import CalibrationSettings
    from workflows.materials import Materials

_Similarity = Literal["cosine", "euclidean", "dot"]


class ResidualSettings(Strict):
    """Settings of `calibration`."""

    rank: int = Field(64, ge=1, description="hidden width")
    targets: Literal["basis", "head", "class-means", "random"] = Field(
        "basis",
        description="what states are moved to: the label words' basis rows, their rows of the head, the classes' mean "
        "states, or random orthogonal directions (to see what the basis is worth)",
    )
    similarity: _Similarity = Field("cosine", description="of calibrated states to their targets")
    temperature: float = Field(0.1, gt=0, description="divisor of the similarities at the start; learned")
    dropout: float = Field(0.3, ge=0, lt=1, description="on hidden units")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    weight_decay: float = Field(0.1, ge=0, description="of AdamW")
    batch_size: int = Field(128, ge=1, description="rows a step")
    epochs: int = Field(100, ge=1, description="at most")
    patience: int = Field(10, ge=1, description="epochs without a lower validation loss before it stops")


class PaperSettings(Strict):
    """Settings of `calibration-paper`; what the paper does not state is marked ours."""

    loss: Literal["vocabulary", "labels", "sm-gt"] = Field(
        "vocabulary",
        description="cross-entropy over all bases, over the task's labels, or 1 - cosine to the true basis",
    )
    similarity: _Similarity = Field("cosine", description="of calibrated states to basis rows")
    temperature: float = Field(1.0, gt=0, description="divisor of the similarities; the paper states none")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW; the paper states neither (ours)")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW (ours)")
    batch_size: int = Field(256, ge=1, description="rows a step (paper)")
    epochs: int = Field(100, ge=1, description="always all of them (paper)")


class Calibration(Method):
    """Residual low-rank module, cross-entropy over the task's labels, early stopping (ours)."""

    name = "calibration"
    version = 2  # 2: each use of a seed has a random stream of its own, so that fits side by side do not mix
    needs: ClassVar = frozenset({"train", "basis", "head"})
    several_layers = False
    seeded = True
    portable = True
    has_epochs = True
    Settings: ClassVar[type[Strict]] = ResidualSettings
    space: ClassVar = {
        "learning_rate": Domain(log_uniform=(3e-4, 3e-3)),
        "weight_decay": Domain(log_uniform=(1e-2, 1.0)),
        "rank": Domain(choice=(16, 32, 64, 128)),
        "dropout": Domain(choice=(0.0, 0.1, 0.3, 0.5)),
    }
    sources = tuple(f"vocabsem_core.{name}" for name in ("calibration", "packs", "residual", "affinity", "targets"))

    def fit(self, settings: Any, materials: Materials, seed: int) -> dict[str, Tensor]:
        (found,) = self.fit_many([(settings, seed)], materials)
        if isinstance(found, InputError):
            raise found
        return found.tensors

    def structure(self, settings: Any) -> Hashable:
        from vocabsem_core.packs import structure

        return (self.targets_of(settings), *structure(self.core_settings(settings)))

    def fit_bytes(self, settings: Any, materials: Materials) -> int:
        from vocabsem_core.packs import lane_bytes

        classes, width = materials.class_basis.shape
        core = self.core_settings(settings)
        rows = len(materials.other_basis) if core.loss == "vocabulary" else 0
        return lane_bytes(core, width, classes + rows)

    def fit_many(
        self, jobs: Sequence[tuple[Any, int]], materials: Materials, watch: Watch | None = None
    ) -> list[Fitted | InputError]:
        from vocabsem_core.packs import Lane, fit_pack

        lanes = [Lane(self.core_settings(settings), seed) for settings, seed in jobs]
        vocabulary = materials.other_basis if lanes[0].settings.loss == "vocabulary" else None
        targets = self._targets(jobs[0][0], materials)
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
            else Fitted({**one.weights, "targets": targets}, one.validation_loss, one.epochs)
            for one in done
        ]

    def targets_of(self, settings: Any) -> str:
        """The kind of targets."""
        return settings.targets

    def _targets(self, settings: Any, materials: Materials) -> Tensor:
        """What the states of each class are moved to, [c, d]."""
        from vocabsem_core.targets import centred_means, random_orthogonal

        kind = self.targets_of(settings)
        if kind == "head":
            return materials.class_mean(materials.label_head.weight, dim=0)
        if kind == "class-means":
            return centred_means(materials.train.states, materials.train.labels, len(materials.labels))
        return materials.class_basis if kind == "basis" else random_orthogonal(materials.class_basis)

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: Materials) -> Tensor:
        from vocabsem_core.calibration import calibrated_logits

        return calibrated_logits(states, fitted["targets"], self.core_settings(settings), fitted)

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """Without the standardisation and the targets, which are measured and not trained."""
        measured = ("mean", "deviation", "targets")
        return sum(tensor.numel() for name, tensor in fitted.items() if name not in measured)

    def core_settings(self, settings: Any) -> CalibrationSettings:
        from vocabsem_core.calibration import CalibrationSettings

        own = settings.model_dump(exclude={"targets"})
        return CalibrationSettings(module="residual", loss="labels", learn_temperature=True, **own)


class PaperCalibration(Calibration):
    """The paper's module and training."""

    name = "calibration-paper"
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

    def targets_of(self, settings: Any) -> str:
        return "basis"

    def core_settings(self, settings: Any) -> CalibrationSettings:
        from vocabsem_core.calibration import CalibrationSettings

        return CalibrationSettings(
            module="paper", learn_temperature=False, patience=None, dropout=0.0, **settings.model_dump()
        )
