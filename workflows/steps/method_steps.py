"""The steps of a method: its search for settings, and the fit of each seed. What it is given of a row decides who makes
them: `fit` for stored states, `finetune` for prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from orchestration.graph import Step
from workflows.methods.base import InputKind
from workflows.methods.resolved import ResolvedMethod
from workflows.search.trials import listed
from workflows.steps import finetune, fit
from workflows.steps.fit import Conditions, Inputs


class MethodSteps(Protocol):
    """A module that makes the steps of methods with one kind of input."""

    def search_step(
        self,
        method: ResolvedMethod,
        where: str,
        inputs: Inputs,
        conditions: Conditions,
        seed: int,
        settings: Sequence[Mapping[str, Any]],
    ) -> Step:
        """The search, which tries these settings."""

    def fit_step(
        self,
        method: ResolvedMethod,
        where: str,
        inputs: Inputs,
        conditions: Conditions,
        seed: int,
        search: Step | None,
    ) -> Step:
        """The fit of a seed with the best of the search, or the settings that are given."""


STEPS_FOR: Mapping[InputKind, MethodSteps] = {"features": fit, "prompts": finetune}


def search_step(
    method: ResolvedMethod, where: str, inputs: Inputs, conditions: Conditions, trials: int, seed: int
) -> Step | None:
    """The search for settings; None where the method has nothing to tune, one trial is the budget, or no row is left.

    Of one training row a class, none is held out to choose by.
    """
    if trials < 2 or not method.space or conditions.train_size == 1:
        return None
    tried = listed(method.method, method.space, dict(method.settings), trials, seed)
    make = STEPS_FOR[method.method.input_kind].search_step
    return make(method, where, inputs, conditions, seed, [one["settings"] for one in tried])


def fit_step(
    method: ResolvedMethod, where: str, inputs: Inputs, conditions: Conditions, seed: int, search: Step | None
) -> Step:
    """The fit of a seed, and its predictions on the test rows."""
    return STEPS_FOR[method.method.input_kind].fit_step(method, where, inputs, conditions, seed, search)
