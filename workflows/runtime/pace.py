"""How fast work goes, from the progress it reports, and the line that says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from orchestration.execution.repeating import repeating
from orchestration.store.scratch import StepProgress

FIRST_SECONDS, NEXT_SECONDS = 10.0, 30.0  # until the first line about work under way, and between two
LOOK_SECONDS = 1.0  # between two looks


def looking(look: Callable[[], None]) -> AbstractContextManager[None]:
    """Call a function at every look, beside the work."""
    return repeating(look, LOOK_SECONDS)


class Pace:
    """One piece of work under way: since when, how far, how fast.

    Args:
        label: what it is called.
        began: when, by a clock of seconds that never goes back.
    """

    def __init__(self, label: str, began: float) -> None:
        self.label, self.began = label, began
        self.told: StepProgress | None = None
        self._first: tuple[float, float] | None = None  # when something was heard first, and how much was done then
        self._last = began
        self._due = began + FIRST_SECONDS

    def hear(self, told: StepProgress | None, now: float) -> None:
        """Hear how far it is; None is nothing new. Less than before, or another unit, is work begun anew.

        What is told before the first is done is of its preparation: time counts from the last of it.
        """
        if told is None or told == self.told:
            return
        anew = self.told is None or told.unit != self.told.unit or told.done < self.told.done
        if self._first is None or anew or told.done == self._first[1]:
            self._first = (now, told.done)
        self.told, self._last = told, now

    def is_due(self, now: float) -> bool:
        """Whether it is time for a line about it; after one, not again for `NEXT_SECONDS`."""
        if now < self._due:
            return False
        self._due = now + NEXT_SECONDS
        return True

    @property
    def rate(self) -> float | None:
        """Units a second, None where that is not known yet."""
        if self.told is None or self._first is None or self._last <= self._first[0]:
            return None
        return (self.told.done - self._first[1]) / (self._last - self._first[0]) or None

    def amount(self) -> str:
        """ "512 of 4,096 rows", or "" where nothing was said."""
        return self.told.amount() if self.told is not None else ""

    def speed(self, now: float) -> str:
        """ "3.4 rows/s, 17 min left", or "" where that is not known yet."""
        if self.told is None or (rate := self.rate) is None:
            return ""
        unit = self.told.unit.rstrip()
        fast = f"{_plain(rate)} {unit}/s" if rate >= 0.1 else f"{duration(1 / rate)} for each of the {unit}"
        if not self.told.of:
            return fast
        left = (self.told.of - self.told.done) / rate - (now - self._last)
        return f"{fast}, {duration(max(0.0, left))} left"

    def line(self, now: float) -> str:
        """All of it: "encode test: 512 of 4,096 rows, 3.4 rows/s, 17 min left; best 0.512"."""
        known = ", ".join(part for part in (self.amount(), self.speed(now)) if part)
        note = self.told.note if self.told is not None else ""
        return f"{self.label}: " + "; ".join(p for p in (known or f"{duration(now - self.began)} so far", note) if p)


def telling(label: str, unit: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Hears how much of how much is done, and says so as often as of any work under way."""
    pace = Pace(label, time.monotonic())

    def hear(done: int, of: int) -> None:
        now = time.monotonic()
        pace.hear(StepProgress(done, of, unit), now)
        if pace.is_due(now):
            say(f"  {pace.line(now)}")

    return hear


def duration(seconds: float) -> str:
    """Seconds for a person: 8 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _plain(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
