"""What a method is: one class in one file. No torch at the top here or in any method's file: plans import them."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workflows.config import Strict

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.materials import Materials

Need = Literal["train", "head", "basis"]


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]

    def sample(self, generator: random.Random) -> Any:
        return generator.choice(self.values)


@dataclass(frozen=True)
class LogUniform:
    """A number whose logarithm is uniform between those of `low` and `high`."""

    low: float
    high: float

    def sample(self, generator: random.Random) -> float:
        return math.exp(generator.uniform(math.log(self.low), math.log(self.high)))


class Method(ABC):
    """A method of classification from stored states.

    Attributes:
        name: its name in YAML files and results.
        version: raise it when the same settings shall give another result; part of the key.
        needs: what it reads beside the test states: "train" (training states and labels), "head" and "basis" (the
            label words' rows). Only what is named here becomes an input of its steps.
        seeded: whether a fit on the same rows depends on the seed.
        Settings: a pydantic model of its settings, with defaults.
        space: setting -> distribution to search; empty: nothing to tune.
        sources: modules whose source is watched for drift.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]]
    seeded: ClassVar[bool] = False
    Settings: ClassVar[type[Strict]] = Strict
    space: ClassVar[Mapping[str, Choice | LogUniform]] = {}
    sources: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def fit(self, settings: Any, materials: Materials, seed: int) -> dict[str, Tensor]:
        """Everything learned from the training rows, as named tensors; they are stored with the predictions."""

    @abstractmethod
    def predict(self, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: Materials) -> Tensor:
        """Class scores [n, classes] of states [n, d], the largest being the prediction."""

    def trained_weights(self, fitted: dict[str, Tensor]) -> int:
        """How many numbers were trained. The default counts what `fit` returned."""
        return sum(tensor.numel() for tensor in fitted.values())


def trial_settings(method: Method, fixed: Mapping[str, Any], trials: int, seed: int) -> list[dict[str, Any]]:
    """The settings a search tries: the defaults first, then random draws; what the user fixed is not varied."""
    generator = random.Random(seed)
    free = {name: domain for name, domain in method.space.items() if name not in fixed}
    draws = [{name: domain.sample(generator) for name, domain in free.items()} for _ in range(trials - 1)]
    return [dict(fixed), *({**fixed, **draw} for draw in draws)]
