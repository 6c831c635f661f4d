"""Semantic calibration: a small module that moves states to their labels' basis rows (paper, section 3.3).

`calibration` is ours: residual and low-rank, starts as the identity on centred states, which is `affinity-centred`;
cross-entropy over the task's labels, learned temperature, early stopping. `calibration_paper` is the paper's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from vocabsem_core.errors import InputError
from vocabsem_core.names import Centre, LabelRows, Similarity, Targets
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.base import Fitted, Method, Need, Watch
from workflows.methods.label_rows import CENTRE, SHRINKAGE, needs_of_centre, needs_of_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from torch import Tensor

    from vocabsem_core.calibration.modules import CalibrationSettings
    from vocabsem_core.calibration.vocabulary import Vocabulary
    from workflows.methods.inputs.states import TaskFeatures

_TRAIN: frozenset[Need] = frozenset({"train"})


class ResidualSettings(Strict):
    """Settings of `calibration`."""

    rank: int = Field(64, ge=1, description="hidden width")
    targets: Targets = Field(
        "basis",
        description="what states are moved to: the label words' basis rows, their rows of the head or of the input "
        "embedding, the classes' mean states, random orthogonal directions, or rows that start as the basis and are "
        "learned (to see what the basis is worth); all are seen from their mean, unless `centre` is none",
    )
    shrinkage: float = SHRINKAGE
    centre: Centre = CENTRE
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


class Calibration(Method):
    """Residual low-rank module, cross-entropy over the task's labels, early stopping (ours)."""

    name = "calibration"
    version = 3  # 3: states and targets are seen from their means, and the basis is shrunken
    needs: ClassVar = _TRAIN | {"spectrum", "unlabelled"}
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
        """Other targets are other inputs, and so is another centre."""
        return _TRAIN | needs_of_rows(settings, searched) | needs_of_centre(settings, searched)

    def structure(self, settings: Any) -> Hashable:
        from vocabsem_core.calibration.batched_training import structure

        compared = (self.targets(settings), self.similarity(settings))
        return (self.seen_as(settings), compared, *structure(self.core_settings(settings)))

    def fit_bytes(self, settings: Any, materials: TaskFeatures) -> int:
        from vocabsem_core.calibration.batched_training import lane_bytes

        classes, width = len(materials.labels), materials.head_width
        core = self.core_settings(settings)
        rows = len(materials.other_basis.rows) if core.loss == "vocabulary" else 0
        return lane_bytes(core, width, classes + rows, materials.width)

    def fit_many(
        self, jobs: Sequence[tuple[Any, int]], materials: TaskFeatures, watch: Watch | None = None
    ) -> list[Fitted | InputError]:
        from vocabsem_core.calibration.batch import Lane
        from vocabsem_core.calibration.batched_training import fit_pack
        from vocabsem_core.calibration.modules import Labelled
        from vocabsem_core.semantics.centring import Centred

        lanes, first = [Lane(self.core_settings(settings), seed) for settings, seed in jobs], jobs[0][0]
        centre = self.centre_of(first, materials)
        compared, vocabulary = self.rows_compared(first, materials), self.vocabulary(first, materials)
        train, validation = (
            Labelled(rows.states if centre is None else Centred(rows.states, centre), rows.labels)
            for rows in (materials.stored_train, materials.stored_validation)
        )
        done = fit_pack(
            train,
            validation,
            self.rows_trained(first, materials).to(materials.device),
            lanes,
            vocabulary.to(materials.device) if vocabulary is not None else None,
            watch,
        )
        measured = {"targets": compared, **({} if centre is None else {"centre": centre})}
        return [
            one if isinstance(one, InputError) else Fitted({**one.weights, **measured}, one.validation_loss, one.epochs)
            for one in done
        ]

    def seen_as(self, settings: Any) -> Hashable:
        """What decides the centre and the targets of training."""
        return settings.targets, settings.shrinkage, settings.centre

    def similarity(self, settings: Any) -> Similarity:
        return settings.similarity

    def targets(self, settings: Any) -> str:
        """The kind of targets in prediction."""
        return settings.targets

    def centre_of(self, settings: Any, materials: TaskFeatures) -> Tensor | None:
        """What is taken off every state, [d]; None: nothing."""
        return materials.centre(settings.centre)

    def rows_trained(self, settings: Any, materials: TaskFeatures) -> Tensor:
        """What the states of each class are moved to, [c, d]."""
        from vocabsem_core.calibration.targets import centred_means
        from vocabsem_core.semantics.centring import centred_rows

        if settings.targets == "class-means":
            states = materials.train.states[:, : materials.head_width]
            return centred_means(states, materials.train.labels, len(materials.labels))
        kind: LabelRows = "basis" if settings.targets == "learned" else settings.targets
        rows = materials.label_rows(kind, settings.shrinkage)
        return rows if settings.centre == "none" else centred_rows(rows)

    def rows_compared(self, settings: Any, materials: TaskFeatures) -> Tensor:
        """What calibrated states are compared with in prediction, [c, d]."""
        return self.rows_trained(settings, materials)

    def vocabulary(self, settings: Any, materials: TaskFeatures) -> Vocabulary | None:
        """The other rows of the vocabulary, where the loss is over all of them."""
        return None

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures) -> Tensor:
        from vocabsem_core.calibration.modules import calibrated_logits

        core = replace(self.core_settings(settings), similarity=self.similarity(settings))
        seen = states - fitted["centre"] if "centre" in fitted else states
        return calibrated_logits(seen, fitted["targets"], core, fitted)

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """Without the centre, the standardisation and the targets, which are measured and not trained."""
        measured = ("centre", "mean", "deviation", "targets")
        return sum(tensor.numel() for name, tensor in fitted.items() if name not in measured)

    def core_settings(self, settings: Any) -> CalibrationSettings:
        from vocabsem_core.calibration.modules import CalibrationSettings

        own = settings.model_dump(exclude={"targets", "shrinkage", "centre"})
        learned = settings.targets == "learned"
        return CalibrationSettings(
            module="residual", loss="labels", learn_temperature=True, learn_targets=learned, **own
        )
