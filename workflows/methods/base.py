"""What a method is: one class in one file. No torch at the top here or in any method's file: plans import them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from vocabsem_core.errors import InputError
from vocabsem_core.names import Similarity
from workflows.config.compare import Demonstrations
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

InputKind = Literal["features", "prompts"]
Need = Literal["train", "unlabelled", "head", "basis", "spectrum", "embedding", "content_free"]
OF_LABEL_WORDS: frozenset[Need] = frozenset({"head", "basis", "spectrum", "embedding"})
Watch = Callable[[int, Mapping[int, float]], Collection[int]]  # (epoch, place -> validation loss) -> places to end


@dataclass(frozen=True)
class Fitted:
    """What was learned, as named tensors, and where the method trains in epochs, how that went."""

    tensors: dict[str, Tensor]
    validation_loss: float | None = None
    epochs: int | None = None


class TaskInput(Protocol):
    """What a search needs of a task, whatever stands for a row: `TaskFeatures` of states, `Texts` of prompts."""

    @property
    def labels(self) -> list[str]:
        """Label names in class order."""

    @property
    def device(self) -> str:
        """Where batched work runs."""

    @property
    def held_out(self) -> tuple[Any, Tensor]:
        """The validation rows' states or prompts, which can be asked for by number, and their class numbers, [n]."""


class Method(ABC):
    """A method of classification. What its functions are given as `materials` is of its `input_kind`: see `TaskInput`.

    Attributes:
        name: its name in YAML files and results.
        version: raise it when the same settings shall give another result; part of the key.
        input_kind: what stands for a row: its stored states ("features"), or its prompt and the language model itself
            ("prompts"). The kind of its steps follows from it (see `steps.method_steps`).
        trains_model: whether it trains the language model, which a quantised one does not allow.
        needs: what it reads beside the test states: "train" (training states and labels), "unlabelled" (training states
            alone), "head", "basis" and "embedding" (the label words' rows), "spectrum" (from which basis rows of any
            shrinkage follow), and "content_free" (states of content-free prompts). Only what is named here becomes an
            input of its steps. With prompts the label words are read in any case.
        demonstrations: what stands before its prompts where the user says nothing.
        seeded: whether a fit on the same rows depends on the seed.
        Settings: a pydantic model of its settings, with defaults.
        space: setting -> what to search it in, where the user says nothing; empty: nothing to tune.
        scores_words: whether it predicts by `materials.label_scores`, so that with `label_tokens: whole` it is given
            the log-likelihoods of whole label words, [n, classes], in place of states.
        holds_out: whether a fifth of the training rows is kept from its fits, to choose settings or an epoch by; one
            that chooses nothing learns from all of them. In a search every method has rows held out.
        several_layers: whether the states it is given may be those of several layers side by side.
        portable: whether `predict` uses nothing of the materials, only what was fitted, so that a fit can be served.
        has_epochs: whether `fit_many` tells a validation loss after each epoch, so that a search may end a fit early.
        uses_gpu: whether its fits run where `materials.device` says; a sweep's workers ask for a GPU then alone.
        source_file, source_digest: of a user's own method or adapter, its file and a digest, which joins every key.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    input_kind: ClassVar[InputKind] = "features"
    trains_model: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]]
    demonstrations: ClassVar[Demonstrations] = "none"
    seeded: ClassVar[bool] = False
    Settings: ClassVar[type[Strict]] = Strict
    space: ClassVar[Mapping[str, Domain]] = {}
    scores_words: ClassVar[bool] = False
    holds_out: ClassVar[bool] = True
    several_layers: ClassVar[bool] = True
    portable: ClassVar[bool] = False
    has_epochs: ClassVar[bool] = False
    uses_gpu: ClassVar[bool] = False
    source_file: str | None = None
    source_digest: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads beside its inputs: a user's own file."""
        return (self.source_file,) if self.source_file is not None else ()

    @abstractmethod
    def fit(self, settings: Any, materials: Any, seed: int) -> dict[str, Tensor]:
        """Everything learned from the training rows, as named tensors; they are stored with the predictions."""

    @abstractmethod
    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: Any) -> Tensor:
        """Class scores [n, classes] of states [n, d], the largest being the prediction."""

    def predict_many(
        self, jobs: Sequence[tuple[Any, dict[str, Tensor]]], states: Tensor, materials: Any
    ) -> Iterator[Tensor | InputError]:
        """Class scores of the same states by each of several (settings, fitted), as `predict` alone would give them.

        An InputError where one cannot predict; the others go on. The default is one after another.
        """
        for settings, fitted in jobs:
            try:
                yield self.predict(settings, fitted, states, materials)
            except InputError as error:
                yield error

    def reads(self, settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
        """What it needs with these settings of the user's, where a search may set those named in `searched`."""
        return self.needs

    def draws(self, settings: Mapping[str, Any], searched: Collection[str]) -> bool:
        """Whether a fit on the same rows depends on the seed with these settings. The default: `seeded`."""
        return self.seeded

    def check_model(self, settings: Any, model: Any) -> None:  # noqa: B027 - a hook: most are used with any
        """Raises InputError for a language model, given without its weights, that it cannot be used with."""

    def similarity(self, settings: Any) -> Similarity | None:
        """By which it compares states with its targets; None where it does not compare them."""
        return None

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """How many numbers were trained. The default counts what `fit` returned."""
        return sum(tensor.numel() for tensor in fitted.values())

    @property
    def batched(self) -> bool:
        """Whether several settings share work, in learning or in predicting, so that they are better tried as one."""
        return type(self).fit_many is not Method.fit_many or type(self).predict_many is not Method.predict_many

    def structure(self, settings: Any) -> Hashable:
        """What settings must have in common to be given to `fit_many` together. The default: nothing."""
        return ()

    def fit_bytes(self, settings: Any, materials: Any) -> int:
        """About how much memory each fit of such a batch takes; 0: not worth counting."""
        return 0

    def fit_many(
        self, jobs: Sequence[tuple[Any, int]], materials: Any, watch: Watch | None = None
    ) -> list[Fitted | InputError]:
        """Fit several (settings, seed) of one structure; an InputError where one cannot be trained, the others go on.

        Each must come out as if it were alone. The default is one after another.
        """
        found: list[Fitted | InputError] = []
        for settings, seed in jobs:
            try:
                found.append(Fitted(self.fit(settings, materials, seed)))
            except InputError as error:
                found.append(error)
        return found


def check_tensors(method: Method, fitted: Any) -> None:
    """Raises ConfigError where a method learned anything but named tensors."""
    if not isinstance(fitted, dict) or not all(hasattr(value, "numel") for value in fitted.values()):
        found = ", ".join(type(value).__name__ for value in fitted.values()) if isinstance(fitted, dict) else ""
        raise ConfigError(
            f"method {method.name!r}: fit() returned {type(fitted).__name__}{f' of {found}' if found else ''}; "
            "expected named tensors"
        )


def plain_scores(method: Method, scores: Any) -> Tensor:
    """What a method predicted, without what autograd knows of it, on the processor.

    Raises ConfigError where that is no tensor.
    """
    if not hasattr(scores, "detach"):
        raise ConfigError(
            f"method {method.name!r}: predict() returned {type(scores).__name__}; expected a tensor [rows, labels]"
        )
    return scores.detach().cpu()


def check_scores(method: Method, scores: Any, rows: int, classes: int) -> None:
    """Raises ConfigError where a method predicted no table of a score for each row and class.

    Raises InputError for scores that are not numbers: with other settings they may be.
    """
    found = tuple(plain_scores(method, scores).shape)
    if found != (rows, classes):
        raise ConfigError(
            f"method {method.name!r}: predict() returned scores of shape {found}; expected [rows, labels] = "
            f"{(rows, classes)}"
        )
    if bool(scores.isnan().any()):
        raise InputError(f"method {method.name!r}: predict() returned scores that are not numbers")
