"""What a run that was interrupted says: what is kept, and what was in hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orchestration.graph import Step
from orchestration.runs.plan import Planned
from orchestration.store.artifacts import Store
from orchestration.store.scratch import keeps, scratch_folder, told

_SHOWN = 5  # steps in hand


class Course:
    """How far a run has come, by the events it hears of. `advice`: how to go on, the last line; none where empty."""

    def __init__(self, plan: Sequence[Planned], store: Store, advice: str = "") -> None:
        self._store, self._total, self._advice, self._is_told = store, len(plan), advice, False
        self._kept = {planned.step.key for planned in plan if planned.state == "cached"}
        self._shards: dict[str, tuple[int, int]] = {}
        self._in_hand: list[Step] = []

    def hear(self, kind: str, step: Step, details: dict[str, Any]) -> None:
        """An event of the run."""
        if kind in ("ran", "shared"):
            self._kept.add(step.key)
        elif kind == "shard":
            self._shards[step.key] = (details["done"], details["of"])
        elif kind == "interrupted":
            self._in_hand.append(step)

    def tell(self, say: Callable[[str], None]) -> None:
        """Say it, once."""
        if not self._is_told:
            self._is_told = True
            say(self.text())

    def text(self) -> str:
        """What is kept, what was in hand and how to go on, as lines."""
        lines = [f"interrupted: {len(self._kept)} of {self._total} steps are done and kept"]
        if self._in_hand:
            lines[0] += "; in progress:"
        lines += [f"  {step.label}: {self._so_far(step)}" for step in self._in_hand[:_SHOWN]]
        if (more := len(self._in_hand) - _SHOWN) > 0:
            lines.append(f"  and {more} more")
        return "\n".join([*lines, self._advice] if self._advice else lines)

    def _so_far(self, step: Step) -> str:
        done, of = self._shards.get(step.key, (0, 1))
        folder = scratch_folder(self._store.root, step.folder)
        said, kept = told(folder), keeps(folder)
        if done and not kept:
            return f"{done:,} of {of:,} shards, which are kept"
        amount = f"{said.amount()}; " if said is not None else ""
        return amount + ("will resume from its saved state" if done or kept else "will start again")
