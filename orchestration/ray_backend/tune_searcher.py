"""Ray Tune's side of a search: which pack a trial tries, and what is done when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from orchestration.ray_backend.trial_queue import Pack, Record, TrialQueue

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own deprecations at import
    from ray.tune.search import Searcher


class PackSearcher(Searcher):
    """Gives each of Tune's trials a pack from the queue, and tells the queue what came of it.

    `outcome` finds the records of a pack, or None where its worker died. After a worker's own mistake nothing more is
    given out.
    """

    def __init__(
        self, queue: TrialQueue, outcome: Callable[[Pack], Sequence[Record] | None], mistaken: Callable[[], bool]
    ) -> None:
        super().__init__(metric="configurations", mode="max")
        self._queue, self._outcome, self._mistaken = queue, outcome, mistaken
        self._packs: dict[str, Pack] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._mistaken():
            return self.FINISHED
        pack = self._queue.take()
        if pack is None:
            return self.FINISHED if self._queue.exhausted and not self._packs else None
        self._packs[trial_id] = pack
        return {"pack": pack}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        pack = self._packs.pop(trial_id)
        records = self._outcome(pack)
        if records is not None:
            self._queue.tell(records)
        elif not self._mistaken():
            self._queue.died(pack)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is finished lies in files of its own."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
