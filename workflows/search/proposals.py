"""Where a search's configurations come from, in packs: a list made beforehand, or Optuna, which learns from results."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workflows.config.space import Domain, Settings, Space
from workflows.methods.base import Method
from workflows.search.trials import Configuration, Record, configuration, packs_of, refusal

if TYPE_CHECKING:
    import optuna

PackSize = Callable[[Configuration], int]
_WAVES = 8  # how often Optuna sees results and proposes more
_REPEATS = 100  # in a row of what was proposed before: then the space is taken as exhausted


class FixedTrials:
    """Configurations that are known beforehand: a grid, random draws."""

    def __init__(self, method: Method, configurations: Sequence[Configuration], most: PackSize, workers: int) -> None:
        self._method, self._most, self._workers = method, most, workers
        self._waiting = list(configurations)
        self._packs: deque[list[Configuration]] | None = None
        self.total = len(configurations)

    def take(self) -> list[Configuration] | None:
        if self._packs is None:
            self._packs = deque(
                packs_of(self._method, self._waiting, _shared(self._most, self._waiting, self._workers))
            )
        return self._packs.popleft() if self._packs else None

    def tell(self, records: Sequence[Record]) -> None:
        if self._packs is None:  # of an earlier attempt
            known = {record["key"] for record in records}
            self._waiting = [one for one in self._waiting if one["key"] not in known]

    @property
    def exhausted(self) -> bool:
        return self._packs is not None and not self._packs


class OptunaTrials:
    """Optuna's tree-structured Parzen estimator, in waves: it sees all results of one before it proposes the next.

    What it proposes follows from seed and results alone, whoever tries it and however often the search is interrupted.
    The defaults are tried first; it learns from them where its space holds them.
    """

    def __init__(
        self, method: Method, space: Space, fixed: Settings, trials: int, seed: int, most: PackSize, workers: int
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._method, self._space, self._fixed, self._seed = method, space, fixed, seed
        self._most, self._workers, self.total = most, workers, trials
        self._distributions = {name: distribution(space[name]) for name in sorted(space)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._known: dict[str, Record] = {}
        self._proposed: set[str] = set()
        self._wave: list[tuple[str, optuna.Trial | None]] = []  # keys, and what waits for their results
        self._packs: deque[list[Configuration]] = deque()
        self._dry = False

    def take(self) -> list[Configuration] | None:
        while not self._packs and not self._open and not self.exhausted:
            self._close_wave()
            new = [one for one in self._next_wave() if one["key"] not in self._known]
            self._packs.extend(packs_of(self._method, new, _shared(self._most, new, self._workers)))
        return self._packs.popleft() if self._packs else None

    @property
    def _open(self) -> bool:
        return any(key not in self._known for key, _ in self._wave)

    def _close_wave(self) -> None:
        """Let Optuna learn, in the order it asked in."""
        for key, trial in self._wave:
            record = self._known[key]
            if trial is not None:
                self._study.tell(trial, **_outcome(record))
            elif record["validation"] is not None and all(
                domain.holds(record["settings"][name]) for name, domain in self._space.items()
            ):
                self._study.add_trial(finished_trial(record, self._space))
        self._wave = []

    def _next_wave(self) -> list[Configuration]:
        """New configurations, none proposed before."""
        found: list[Configuration] = []
        if not self._proposed:
            found.append(configuration(self._method, self._fixed, self._seed))
            self._wave.append((found[0]["key"], None))
        closed, repeats = set(self._proposed), 0
        self._proposed |= {one["key"] for one in found}
        width = min(-(-self.total // _WAVES), self.total - len(closed))
        while len(found) < width and repeats < _REPEATS:
            trial = self._study.ask(self._distributions)
            drawn = {name: drawn_value(self._space[name], found) for name, found in trial.params.items()}
            if refusal(self._method, {**self._fixed, **drawn}):
                repeats += 1
                self._study.tell(trial, state=_failed())
                continue
            one = configuration(self._method, {**self._fixed, **drawn}, self._seed)
            if one["key"] in self._proposed:
                repeats += 1
                told = _outcome(self._known[one["key"]]) if one["key"] in closed else {"state": _failed()}
                self._study.tell(trial, **told)
                continue
            repeats = 0
            self._proposed.add(one["key"])
            self._wave.append((one["key"], trial))
            found.append(one)
        self._dry = repeats >= _REPEATS
        return found

    def tell(self, records: Sequence[Record]) -> None:
        self._known |= {record["key"]: record for record in records}

    @property
    def exhausted(self) -> bool:
        return not self._packs and (self._dry or len(self._proposed) >= self.total)


def _shared(most: PackSize, configurations: Sequence[Configuration], workers: int) -> PackSize:
    """Packs small enough that every worker gets one."""
    share = max(1, -(-len(configurations) // workers))
    return lambda one: min(share, most(one))


def _outcome(record: Record) -> dict[str, Any]:
    return {"values": record["validation"]} if record["validation"] is not None else {"state": _failed()}


def _failed() -> optuna.trial.TrialState:
    from optuna.trial import TrialState

    return TrialState.FAIL


def distribution(domain: Domain) -> optuna.distributions.BaseDistribution:
    """A domain as Optuna has it."""
    from optuna import distributions

    if domain.kind == "choice":
        return distributions.CategoricalDistribution([_plain(value) for value in domain.values])
    low, high = domain.values
    if domain.kind == "integer":
        return distributions.IntDistribution(low, high)
    return distributions.FloatDistribution(low, high, log=domain.kind == "log_uniform")


def _plain(value: Any) -> Any:
    """A choice as Optuna takes it: what is no number and no text becomes one."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def drawn_value(domain: Domain, found: Any) -> Any:
    """The value of a domain that Optuna drew."""
    return next(value for value in domain.values if _plain(value) == found) if domain.kind == "choice" else found


def finished_trial(record: Mapping[str, Any], space: Space) -> optuna.trial.FrozenTrial:
    """A record as Optuna has it; its settings must lie in the space."""
    from optuna.trial import create_trial

    return create_trial(
        params={name: _plain(record["settings"][name]) for name in space},
        distributions={name: distribution(domain) for name, domain in space.items()},
        value=record["validation"],
    )
