"""Spaces of settings: what a search varies, and what it tries."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError, model_validator

from orchestration.graph import canonical
from workflows.config.strict import Strict
from workflows.errors import ConfigError, nearest

Settings = dict[str, Any]
_MOST_COMBINATIONS = 100_000
_DRAWS = 50  # in a row that were all tried before: then the few that are left are taken in their order


class Domain(Strict):
    """The range of a setting. Give exactly one of the fields."""

    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="one of these values")
    uniform: tuple[float, float] | None = Field(None, description="a number from low to high")
    log_uniform: tuple[float, float] | None = Field(
        None, description="a number from low to high, uniform on a log scale"
    )
    integer: tuple[int, int] | None = Field(None, description="a whole number from low to high, both included")

    @model_validator(mode="after")
    def _one_kind_in_order(self) -> Domain:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            told = f"is given with {given[0]}; keep one" if given else "is missing, and every other kind"
            raise ValueError(f"{(given or ['', 'choice'])[1]} {told} of {', '.join(type(self).model_fields)}")
        if self.kind == "choice":
            if any(value in self.values[:place] for place, value in enumerate(self.values)):
                raise ValueError(f"choice {list(self.values)}: a value is listed twice; list each once")
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
        if not isinstance(value, int | float) or not self.values[0] <= value <= self.values[1]:
            return False
        return self.kind != "integer" or value == int(value)  # 2.0 where the setting is no whole number

    def __str__(self) -> str:
        if self.kind == "choice":
            return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.values)
        return f"{self.values[0]:g} to {self.values[1]:g}, {self.kind.replace('_', '-')}"


Space = Mapping[str, Domain]
Refusal = Callable[[Settings], str | None]  # why settings cannot be had together


def _none(_: Settings) -> None:
    """Settings that can all be had together."""


def check_space(method: str, settings: type[Strict], space: Space, fixed: Settings) -> Space:
    """The space with its choices as the settings have them: 0.001, where YAML reads 1e-3 as text.

    Raises ConfigError where a search of this space makes no sense; its place is the setting's name.
    """
    if not space:
        fields = ", ".join(settings.model_fields)
        told = f"name some of {fields} under `space`" if fields else "it has no settings"
        raise ConfigError(f"method {method!r}: an empty space, nothing to search; {told}")
    found = {}
    for name, domain in space.items():
        if name not in settings.model_fields:
            known = list(settings.model_fields)
            hint = nearest(name, known) if known else "it has no settings"
            raise ConfigError(f"method {method!r} has no setting {name!r}; {hint}", (name,))
        if name in fixed:
            raise ConfigError(
                f"setting {name!r} is both searched and fixed at {fixed[name]!r}; keep one of them", (name,)
            )
        if settings.model_fields[name].annotation is int and domain.kind in ("uniform", "log_uniform"):
            raise ConfigError(f"setting {name!r} is a whole number: use integer or choice, not {domain.kind}", (name,))
        read = []
        for value in domain.values:
            try:
                read.append(settings.model_validate({**fixed, name: value}).model_dump(mode="json")[name])
            except ValidationError as error:
                if not (own := [problem["msg"] for problem in error.errors() if problem["loc"]]):
                    read.append(value)  # only beside other settings' defaults: which go together is seen when drawn
                    continue
                raise ConfigError(f"setting {name!r}: {domain.kind} holds {value!r}; {own[0]}", (name,)) from error
        try:
            found[name] = Domain(choice=tuple(read)) if domain.kind == "choice" else domain
        except ValidationError as error:
            raise ConfigError(f"setting {name!r}: {error.errors()[0]['ctx']['error']}", (name,)) from error
    return found


def random_settings(space: Space, fixed: Settings, trials: int, seed: int, refused: Refusal = _none) -> list[Settings]:
    """The defaults first, then random draws, none twice: fewer than `trials` where the space has no more.

    Raises ConfigError where no combination that was drawn can be had.
    """
    generator, found, repeated, why = random.Random(seed), {canonical(fixed): dict(fixed)}, 0, None
    while len(found) < trials and repeated < _DRAWS:
        drawn = {**fixed, **{name: space[name].sample(generator) for name in sorted(space)}}
        name, refusal = canonical(drawn), refused(drawn)
        why = refusal or why
        new = name not in found and not refusal
        repeated = 0 if new else repeated + 1
        if new:
            found[name] = drawn
    if repeated and not any(domain.kind in ("uniform", "log_uniform") for domain in space.values()):
        left = {canonical(settings): settings for settings in grid_settings(space, fixed, refused)}
        found |= {name: settings for name, settings in left.items() if name not in found}
    if why and len(found) == 1:
        raise ConfigError(_told_refused(why))
    return list(found.values())[:trials]


def grid_settings(space: Space, fixed: Settings, refused: Refusal = _none) -> list[Settings]:
    """Every combination that can be had.

    Raises ConfigError for a number without steps, for more combinations than are sensible, and where none can be had.
    """
    for name, domain in space.items():
        if domain.kind in ("uniform", "log_uniform"):
            raise ConfigError(
                f"setting {name!r}: a grid needs values, not {domain.kind}; write them as choice", (name,)
            )
    if (count := combinations(space)) > _MOST_COMBINATIONS:
        raise ConfigError(f"{count:,} combinations; a grid may have {_MOST_COMBINATIONS:,}. Use algorithm: random")
    names = sorted(space)
    values: Sequence[Sequence[Any]] = [
        range(domain.values[0], domain.values[1] + 1) if domain.kind == "integer" else domain.values
        for domain in map(space.__getitem__, names)
    ]
    every = [{**fixed, **dict(zip(names, drawn, strict=True))} for drawn in itertools.product(*values)]
    found = [settings for settings in every if not refused(settings)]
    if not found:
        raise ConfigError(_told_refused(str(refused(every[0]))))
    return found


def combinations(space: Space) -> int:
    """How many combinations a space of choices and whole numbers has."""
    return math.prod(
        domain.values[1] - domain.values[0] + 1 if domain.kind == "integer" else len(domain.values)
        for domain in space.values()
    )


def _told_refused(why: str) -> str:
    return f"no combination of the space is valid: {why}"
