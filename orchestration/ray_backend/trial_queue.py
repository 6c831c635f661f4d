"""What a search still has to try and what came of the rest: the queue that its trials are taken from."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestration.graph import key_of
from orchestration.store import files
from orchestration.store.scratch import StepProgress, tell, withdraw

Pack = list[dict[str, Any]]
Record = dict[str, Any]
_SPENT = "spent.json"  # in the scratch folder
_DEATHS = 2  # of a worker with one and the same single configuration, before that is given up


class SearchAlgorithm(Protocol):
    """Where configurations come from."""

    total: int  # how many there will be

    def take(self) -> Pack | None:
        """A pack to try; None: there is none now, though results may bring more, or none ever again."""
        ...

    def tell(self, records: Sequence[Record]) -> None:
        """Take the outcome of configurations, of this or of an earlier attempt; those are never proposed again."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether nothing will ever be proposed again, though some may still be on their way."""
        ...


def seconds_spent(scratch: Path) -> float:
    """What the attempts so far took, each until its last result."""
    path = scratch / _SPENT
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0


def part_of(pack: Sequence[Mapping[str, Any]]) -> str:
    """The name of a pack, by which its worker says how far it is."""
    return key_of({"keys": [one["key"] for one in pack]})[:16]


class TrialQueue:
    """What is to be tried and what came of it, and how far that is."""

    def __init__(
        self, proposals: SearchAlgorithm, scratch: Path, known: Sequence[Record], deadline: float | None
    ) -> None:
        self._proposals, self._scratch, self.deadline = proposals, scratch, deadline
        self.records = {record["key"]: record for record in known}
        self._started, self._spent = time.monotonic(), seconds_spent(scratch)
        self._again: list[Pack] = []
        self._deaths: Counter[str] = Counter()
        self._say()

    def take(self) -> Pack | None:
        """The next pack, None where there is none now."""
        if self._late:
            return None
        return self._again.pop() if self._again else self._proposals.take()

    @property
    def exhausted(self) -> bool:
        """Whether there will be none, unless one under way dies."""
        return self._late or (not self._again and self._proposals.exhausted)

    @property
    def _late(self) -> bool:
        return self.deadline is not None and time.time() > self.deadline

    def tell(self, records: Sequence[Record]) -> None:
        """Take the outcome of a pack."""
        self.records |= {record["key"]: record for record in records}
        self._proposals.tell(records)
        files.replace_json(self._scratch / _SPENT, round(self._spent + time.monotonic() - self._started, 3))
        self._say()

    def died(self, pack: Pack) -> None:
        """A worker died with this pack, out of memory perhaps: half as many at a time."""
        withdraw(self._scratch, part_of(pack))
        name = pack[0]["key"]
        self._deaths[name] += len(pack) == 1
        if self._deaths[name] < _DEATHS:
            half = len(pack) // 2
            self._again += [part for part in (pack[:half], pack[half:]) if part]
            return
        lost: Record = {"ended": "lost", "validation": None, "loss": None, "curve": []}
        self.tell([{**pack[0], **lost, "error": f"its worker died {_DEATHS} times"}])

    def _say(self) -> None:
        scores = [record["validation"] for record in self.records.values() if record["validation"] is not None]
        notes = [f"best {max(scores):.3f}"] if scores else []
        if self.deadline is not None:
            notes.append(f"ends in {max(0.0, self.deadline - time.time()):.0f} s at the latest")
        told = StepProgress(len(self.records), self._proposals.total, "trials", ", ".join(notes))
        tell(self._scratch, told, at_once=True)
