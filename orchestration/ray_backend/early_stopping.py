"""Early stopping of single configurations, whichever batch they are trained in: Ray Tune's own rules, asked by key."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Rule = Literal["none", "asha", "median"]
_METRIC, _TIME = "loss", "epoch"


@dataclass(frozen=True)
class Stopping:
    """When to give a configuration up.

    Attributes:
        rule: "asha" ends, at epochs `grace`, 3 `grace`, 9 `grace` ..., whatever is not in the best third of all that
            came so far; "median" ends, every `grace` epochs, what never was as good as the median of the others'
            averages; "none" ends nothing.
        grace: epochs that each gets.
        epochs: the most that any gets.
    """

    rule: Rule
    grace: int
    epochs: int


@dataclass(eq=False)
class _Entry:
    """What Ray's rules read of a trial."""

    trial_id: str
    status: str = "RUNNING"


class _Controller:
    """What Ray's rules ask of Tune: which trials wait for a place. Here all of a batch go on together."""

    def get_live_trials(self) -> list[_Entry]:
        return []


_NOBODY_WAITS = _Controller()


class EarlyStopper:
    """Hears every configuration's loss after each epoch and says which are to end."""

    def __init__(self, stopping: Stopping, curves: Mapping[str, list[float]]) -> None:
        """`curves`: the losses, by epoch, of configurations that are done already."""
        self._stopping, self._rule = stopping, _rule(stopping)
        self._entries: dict[str, _Entry] = {}
        for key, losses in curves.items():
            for epoch, loss in enumerate(losses, start=1):
                self._hear(epoch, key, loss)

    def end(self, epoch: int, losses: Mapping[str, float]) -> list[str]:
        """The keys of configurations that are to end now; none in the last epoch, where all do."""
        heard = {key: self._hear(epoch, key, loss) for key, loss in losses.items()}
        return [key for key, action in heard.items() if action in ("STOP", "PAUSE") and epoch < self._stopping.epochs]

    def _hear(self, epoch: int, key: str, loss: float) -> str:
        if not math.isfinite(loss) or epoch % self._stopping.grace:
            return "CONTINUE"  # no number: whoever trains it ends it with an error of its own
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key)
            self._rule.on_trial_add(_NOBODY_WAITS, entry)
        return self._rule.on_trial_result(_NOBODY_WAITS, entry, {_METRIC: loss, _TIME: epoch})


def _rule(stopping: Stopping) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own deprecations at import
        from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

    if stopping.rule == "asha":
        return AsyncHyperBandScheduler(
            time_attr=_TIME,
            metric=_METRIC,
            mode="min",
            max_t=stopping.epochs,
            grace_period=min(stopping.grace, stopping.epochs),
            reduction_factor=3,
            stop_last_trials=False,
        )
    return MedianStoppingRule(
        time_attr=_TIME,
        metric=_METRIC,
        mode="min",
        grace_period=stopping.grace,
        min_samples_required=3,
        hard_stop=False,  # it says PAUSE for STOP, and bears to hear again of what it ended
    )
