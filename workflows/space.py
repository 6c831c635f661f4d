"""Spaces of settings: what a search varies, and what it tries."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError, model_validator

from orchestration.graph import canonical
from workflows.config import Strict
from workflows.errors import ConfigError, nearest

Settings = dict[str, Any]
_MOST_COMBINATIONS = 100_000
_DRAWS = 50  # in a row that were all tried before: then the few that are left are taken in their order


class Domain(Strict):
    """What a setting is drawn from. Exactly one of the fields."""

    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="one of these values")
    uniform: tuple[float, float] | None = Field(None, description="a number from low to high")
    log_uniform: tuple[float, float] | None = Field(
        None, description="a number from low to high, whose logarithm is uniform"
    )
    integer: tuple[int, int] | None = Field(None, description="a whole number from low to high, both included")

    @model_validator(mode="after")
    def _one_kind_in_order(self) -> Domain:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            told = f"stands beside {given[0]}; keep one" if given else "is missing, and every other kind"
            raise ValueError(f"{(given or ['', 'choice'])[1]} {told} of {', '.join(type(self).model_fields)}")
        if self.kind == "choice":
            if any(value in self.values[:place] for place, value in enumerate(self.values)):
                raise ValueError(f"choice {list(self.values)}: a value stands twice; list each once")
            return self
        low, high = self.values
        if not low < high:
            raise ValueError(f"{self.kind} [{low:g}, {high:g}]: the first must be below the second")
        if self.kind == "log_uniform" and low <= 0:
            raise ValueError(f"log_uniform [{low:g}, {high:g}]: both must be above zero")
        return self

    @property
    def kind(self) -> str:
        """Which of the fields is given."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def values(self) -> tuple[Any, ...]:
        """The choices, or low and high."""
        return getattr(self, self.kind)

    def sample(self, generator: random.Random) -> Any:
        if self.kind == "choice":
            return generator.choice(self.values)
        low, high = self.values
        if self.kind == "integer":
            return generator.randint(low, high)
        if self.kind == "uniform":
            return generator.uniform(low, high)
        return min(high, max(low, math.exp(generator.uniform(math.log(low), math.log(high)))))  # it may round past them

    def holds(self, value: Any) -> bool:
        """Whether it may be drawn."""
        if self.kind == "choice":
            return value in self.values
        kinds = int if self.kind == "integer" else int | float
        return isinstance(value, kinds) and self.values[0] <= value <= self.values[1]

    def __str__(self) -> str:
        if self.kind == "choice":
            return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.values)
        return f"{self.values[0]:g} to {self.values[1]:g}, {self.kind.replace('_', '-')}"


Space = Mapping[str, Domain]


def check_space(method: str, settings: type[Strict], space: Space, fixed: Settings) -> None:
    """Raises ConfigError where a search of this space makes no sense; its place is the setting's name."""
    if not space:
        fields = ", ".join(settings.model_fields)
        told = f"name some of {fields} under `space`" if fields else "it has no settings"
        raise ConfigError(f"method {method!r}: an empty space, nothing to search; {told}")
    for name, domain in space.items():
        if name not in settings.model_fields:
            known = list(settings.model_fields)
            hint = nearest(name, known) if known else "it has no settings"
            raise ConfigError(f"method {method!r} has no setting {name!r}; {hint}", (name,))
        if name in fixed:
            raise ConfigError(f"setting {name!r} is searched and fixed at {fixed[name]!r}; keep one of them", (name,))
        if settings.model_fields[name].annotation is int and domain.kind in ("uniform", "log_uniform"):
            raise ConfigError(f"setting {name!r} is a whole number: use integer or choice, not {domain.kind}", (name,))
        for value in domain.values:
            try:
                settings.model_validate({**fixed, name: value})
            except ValidationError as error:
                told = error.errors()[0]["msg"]
                raise ConfigError(f"setting {name!r}: {domain.kind} holds {value!r}; {told}", (name,)) from error


def random_settings(space: Space, fixed: Settings, trials: int, seed: int) -> list[Settings]:
    """The defaults first, then random draws, none twice: fewer than `trials` where the space has no more."""
    generator, found, repeated = random.Random(seed), {canonical(fixed): dict(fixed)}, 0
    while len(found) < trials and repeated < _DRAWS:
        drawn = {**fixed, **{name: space[name].sample(generator) for name in sorted(space)}}
        repeated = repeated + 1 if canonical(drawn) in found else 0
        found.setdefault(canonical(drawn), drawn)
    if repeated and not any(domain.kind in ("uniform", "log_uniform") for domain in space.values()):
        left = {canonical(settings): settings for settings in grid_settings(space, fixed)}
        found |= {name: settings for name, settings in left.items() if name not in found}
    return list(found.values())[:trials]


def grid_settings(space: Space, fixed: Settings) -> list[Settings]:
    """Every combination. Raises ConfigError for a number without steps, or more combinations than are sensible."""
    for name, domain in space.items():
        if domain.kind in ("uniform", "log_uniform"):
            raise ConfigError(
                f"setting {name!r}: a grid needs values, not {domain.kind}; write them as choice", (name,)
            )
    names = sorted(space)
    values: Sequence[Sequence[Any]] = [
        range(domain.values[0], domain.values[1] + 1) if domain.kind == "integer" else domain.values
        for domain in map(space.__getitem__, names)
    ]
    if (count := math.prod(map(len, values))) > _MOST_COMBINATIONS:
        raise ConfigError(f"{count:,} combinations; a grid may have {_MOST_COMBINATIONS:,}. Use algorithm: random")
    return [{**fixed, **dict(zip(names, drawn, strict=True))} for drawn in itertools.product(*values)]
