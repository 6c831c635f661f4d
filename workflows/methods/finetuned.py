"""Methods that train the language model itself: LoRA, IA3, and all weights. They read prompts, not stored states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from vocabsem_core.errors import InputError
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.methods.base import Fitted, Method, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from vocabsem_core.finetuning.adapters import Adaptation
    from vocabsem_core.finetuning.trainer import Finetuning, Schedule
    from workflows.methods.inputs.prompts import Texts


class FullSettings(Strict):
    """Settings of `full`."""

    learning_rate: float = Field(3e-4, gt=0, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="of AdamW")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps during which the rate rises; then it falls")
    batch_size: int = Field(16, ge=1, description="rows per step")
    epochs: int = Field(6, ge=1, description="maximum number of epochs")
    patience: int = Field(2, ge=1, description="epochs without a lower validation loss before it stops")


class Ia3Settings(FullSettings):
    """Settings of `ia3`."""

    learning_rate: float = Field(3e-2, gt=0, description="peak learning rate of AdamW; lower for large models")
    target_modules: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="linear layers that are changed, [all-linear] for all but the head; none: peft's for the family",
    )
    feedforward_modules: tuple[str, ...] | None = Field(
        None, description="those of them whose input is scaled, not the output; none: peft's choice"
    )


class LoraSettings(FullSettings):
    """Settings of `lora`."""

    rank: int = Field(8, ge=1, description="of the update")
    alpha: float = Field(16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="on the update's input")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate of AdamW")
    target_modules: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="linear layers that are changed, [all-linear] for all but the head; none: peft's for the family",
    )


class Finetuned(Method):
    """A language model of which some weights are trained, by cross-entropy over the label words' logits.

    What it sees of a task is `Texts`.
    """

    input_kind: ClassVar = "prompts"
    trains_model = True
    needs: ClassVar = frozenset({"train"})
    adapter: ClassVar[Literal["lora", "ia3", "full"]]
    whole: ClassVar = False  # whether the model's own weights are trained: in float32, for bfloat16 loses small steps
    seeded = True
    has_epochs = True

    def adaptation(self, settings: Any) -> Adaptation:
        """What is trained."""
        from vocabsem_core.finetuning.adapters import Adaptation

        names = ("rank", "alpha", "dropout", "target_modules", "feedforward_modules")
        chosen = {name: getattr(settings, name) for name in names if name in type(settings).model_fields}
        return Adaptation(kind=self.adapter, **chosen)

    def check_model(self, settings: Any, model: Any) -> None:
        """Raises InputError for a model without layers to change."""
        from vocabsem_core.finetuning.adapters import check_possible

        check_possible(model, self.adaptation(settings))

    def schedule(self, settings: Any) -> Schedule:
        """How it is trained."""
        from vocabsem_core.finetuning.trainer import Schedule

        return Schedule(**{name: getattr(settings, name) for name in FullSettings.model_fields})

    def begin(self, settings: Any, seed: int, texts: Texts, weights: Any, **team: Any) -> Finetuning:
        """A fit of the adapted model's `weights`, before its first epoch."""
        from vocabsem_core.finetuning.trainer import Finetuning

        train = texts.stored_train
        parts = (train.prompts, train.labels), texts.held_out
        return Finetuning(texts.classifier, weights, *parts, self.schedule(settings), seed, **team)

    def fit(self, settings: Any, materials: Any, seed: int) -> dict[str, Tensor]:
        (found,) = self.fit_many([(settings, seed)], materials)
        if isinstance(found, InputError):
            raise found
        return found.tensors

    def fit_many(
        self, jobs: Sequence[tuple[Any, int]], materials: Any, watch: Watch | None = None
    ) -> list[Fitted | InputError]:
        from vocabsem_core.finetuning.adapters import adapted

        found: list[Fitted | InputError] = []
        for place, (settings, seed) in enumerate(jobs):
            try:
                with adapted(materials.model, self.adaptation(settings), seed) as weights:
                    fit = self.begin(settings, seed, materials, weights)
                    while not fit.over:
                        loss = fit.epoch()
                        if watch is not None and place in watch(len(fit.losses), {place: loss}):
                            break
                    found.append(Fitted(fit.best, min(fit.losses), len(fit.losses)))
            except InputError as error:
                found.append(error)
        return found

    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Any, materials: Any) -> Tensor:
        """Class scores [n, classes] of prompts."""
        from vocabsem_core.finetuning.adapters import adapted, use

        with adapted(materials.model, self.adaptation(settings), 0) as weights:
            use(weights, fitted)
            return materials.classifier.scores(states)


class Lora(Finetuned):
    """Low-rank updates of the attention's projections (arXiv 2106.09685), by peft."""

    name = "lora"
    adapter = "lora"
    Settings = LoraSettings
    space: ClassVar = {
        "learning_rate": Domain(log_uniform=(5e-4, 1e-2)),
        "rank": Domain(choice=(4, 8, 16)),
        "dropout": Domain(choice=(0.0, 0.1)),
    }


class Ia3(Finetuned):
    """Learned scales of keys, values and feed-forward activations (arXiv 2205.05638), by peft."""

    name = "ia3"
    adapter = "ia3"
    Settings = Ia3Settings
    space: ClassVar = {"learning_rate": Domain(log_uniform=(1e-3, 1e-1))}


class FullFinetuning(Finetuned):
    """Every weight of the model, embeddings and LM head included."""

    name = "full"
    adapter = "full"
    whole = True
    Settings = FullSettings
    space: ClassVar = {"learning_rate": Domain(log_uniform=(1e-5, 1e-3))}
