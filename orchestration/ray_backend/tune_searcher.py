"""Ray Tune's side of a search: which pack a trial tries, and what is done when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own deprecations at import
    from ray.tune.search import Searcher

if TYPE_CHECKING:
    from orchestration.ray_backend.tune import Board, Pack, Record


class PackSearcher(Searcher):
    """Gives each of Tune's trials a pack from the board, and tells the board what came of it.

    `outcome` finds the records of a pack, or None where its worker died. After a worker's own mistake nothing more is
    given out.
    """

    def __init__(
        self, board: Board, outcome: Callable[[Pack], Sequence[Record] | None], mistaken: Callable[[], bool]
    ) -> None:
        super().__init__(metric="configurations", mode="max")
        self._board, self._outcome, self._mistaken = board, outcome, mistaken
        self._packs: dict[str, Pack] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._mistaken():
            return self.FINISHED
        pack = self._board.take()
        if pack is None:
            return self.FINISHED if self._board.exhausted and not self._packs else None
        self._packs[trial_id] = pack
        return {"pack": pack}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        pack = self._packs.pop(trial_id)
        records = self._outcome(pack)
        if records is not None:
            self._board.tell(records)
        elif not self._mistaken():
            self._board.died(pack)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is finished lies in files of its own."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, for the same reason."""
