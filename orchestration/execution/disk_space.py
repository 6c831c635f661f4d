"""A word before the disk is full: what is committed is safe even then, but the run would end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from orchestration.store.files import readable

LOW_BYTES = 1 << 30
_PAUSE_SECONDS = 5.0  # between looks


class DiskRoom:
    """Looks at the room on a store's disk while a run goes on, and warns once where it is low.

    `mend` is what a user can do about it, as the end of the sentence.
    """

    def __init__(self, store: Path, say: Callable[[str], None], mend: str) -> None:
        self._store, self._say, self._mend = store, say, mend
        self._next = 0.0
        self._warned = False

    def look(self) -> None:
        """Costs next to nothing when called often."""
        if self._warned or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PAUSE_SECONDS
        free = shutil.disk_usage(self._store).free
        if free < LOW_BYTES:
            self._warned = True
            self._say(
                f"warning: {readable(free)} free on the disk of {self._store}. What is committed is safe if it runs "
                f"full; {self._mend}"
            )
