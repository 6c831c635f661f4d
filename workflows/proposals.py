"""Where a search's configurations come from, in packs: a list made beforehand, or Optuna, which learns from results."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workflows.methods.base import Method
from workflows.space import Domain, Settings, Space
from workflows.trials import Configuration, Record, configuration, packs_of

if TYPE_CHECKING:
    import optuna

_WAVES = 8  # at least so many times Optuna sees results before it proposes more
_REPEATS = 100  # in a row of what was tried before: then the space is taken as exhausted


class Listed:
    """Configurations that are known beforehand: a grid, random draws."""

    def __init__(self, method: Method, configurations: Sequence[Configuration], most: int) -> None:
        self._method, self._most = method, most
        self._waiting = list(configurations)
        self._packs: deque[list[Configuration]] | None = None
        self.total = len(configurations)

    def take(self) -> list[Configuration] | None:
        if self._packs is None:
            self._packs = deque(packs_of(self._method, self._waiting, self._most))
        return self._packs.popleft() if self._packs else None

    def tell(self, records: Sequence[Record]) -> None:
        if self._packs is None:  # of an earlier attempt
            known = {record["key"] for record in records}
            self._waiting = [one for one in self._waiting if one["key"] not in known]

    @property
    def exhausted(self) -> bool:
        return self._packs is not None and not self._packs


class Suggested:
    """Optuna's tree-structured Parzen estimator; the defaults come first, where the space holds them."""

    def __init__(self, method: Method, space: Space, fixed: Settings, trials: int, seed: int, most: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._method, self._space, self._fixed, self._seed = method, space, fixed, seed
        self._distributions = {name: distribution(domain) for name, domain in space.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._wave, self._most = max(1, min(most, trials // _WAVES)), most
        self._packs: deque[list[Configuration]] = deque()
        self._known: dict[str, Record] = {}
        self._asked: dict[str, optuna.Trial | None] = {}  # key -> what waits for its result; none for the defaults
        self._first: list[Configuration] = [configuration(method, fixed, seed)]
        self._dry = False
        self.total = trials

    def take(self) -> list[Configuration] | None:
        if not self._packs and not self.exhausted:
            self._packs.extend(packs_of(self._method, self._next_wave(), self._most))
        return self._packs.popleft() if self._packs else None

    def _next_wave(self) -> Iterable[Configuration]:
        """New configurations, none tried or asked for before."""
        found = [one for one in self._first if one["key"] not in self._known]
        self._asked |= {one["key"]: None for one in found}
        self._first = []
        width = min(self._wave, self.total - len(self._known) - len(self._asked) + len(found))
        repeats = 0
        while len(found) < width and repeats < _REPEATS:
            trial = self._study.ask(self._distributions)
            one = configuration(self._method, {**self._fixed, **trial.params}, self._seed)
            if one["key"] in self._known:
                self._study.tell(trial, **_outcome(self._known[one["key"]]))
                repeats += 1
            elif one["key"] in self._asked:
                self._study.tell(trial, state=_failed())
                repeats += 1
            else:
                self._asked[one["key"]] = trial
                found.append(one)
        self._dry = repeats >= _REPEATS
        return found

    def tell(self, records: Sequence[Record]) -> None:
        for record in records:
            self._known[record["key"]] = record
            trial = self._asked.pop(record["key"], None)
            if trial is not None:
                self._study.tell(trial, **_outcome(record))
            elif record["validation"] is not None and all(
                domain.holds(record["settings"][name]) for name, domain in self._space.items()
            ):
                self._study.add_trial(finished_trial(record, self._space))

    @property
    def exhausted(self) -> bool:
        return not self._packs and (self._dry or len(self._known) + len(self._asked) >= self.total)


def _outcome(record: Record) -> dict[str, Any]:
    return {"values": record["validation"]} if record["validation"] is not None else {"state": _failed()}


def _failed() -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    return TrialState.FAIL


def distribution(domain: Domain) -> optuna.distributions.BaseDistribution:
    """A domain as Optuna has it."""
    from optuna import distributions

    if domain.kind == "choice":
        return distributions.CategoricalDistribution(domain.values)
    low, high = domain.values
    if domain.kind == "integer":
        return distributions.IntDistribution(low, high)
    return distributions.FloatDistribution(low, high, log=domain.kind == "log_uniform")


def finished_trial(record: Mapping[str, Any], space: Space) -> optuna.trial.FrozenTrial:
    """A record as Optuna has it; its settings must lie in the space."""
    from optuna.trial import create_trial

    return create_trial(
        params={name: record["settings"][name] for name in space},
        distributions={name: distribution(domain) for name, domain in space.items()},
        value=record["validation"],
    )
