"""Signs of life: a worker leaves them in its step's scratch folder, and the driver counts how long there was none.

A file changes while the worker goes on; the driver watches its bytes against a clock of its own, so no two hosts'
clocks are compared, and a frozen node need not answer for its worker to be replaced. A worker of sharded work gives a
sign with every batch. A plain step may think for hours without a word, so a thread beside it gives the sign: what is
found out is a process that is frozen or out of reach, never a slow function, nor one that waits for ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestration.execution.repeating import repeating

PULSE_SECONDS = 2.0  # between signs of a plain step's thread
_PAUSE_SECONDS = 0.5  # between signs of one shard: batches may be short
_given: dict[Path, float] = {}  # by this process: when last


def report_alive(file: Path) -> None:
    """Say that work goes on. Costs next to nothing when called often."""
    now = time.monotonic()
    if now - _given.get(file, -_PAUSE_SECONDS) < _PAUSE_SECONDS:
        return
    first = file not in _given
    _given[file] = now
    with suppress(OSError):  # a full disk is for the shard's own write to tell
        if first:
            file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{os.getpid()} {now}\n", encoding="ascii")


def _forget(file: Path) -> None:
    """Remove a sign, and the folders that held nothing else: of a step that failed or was stopped nothing else does."""
    with suppress(OSError):
        file.unlink(missing_ok=True)
        file.parent.rmdir()
        file.parent.parent.rmdir()


@contextmanager
def pulse(file: Path) -> Iterator[None]:
    """Give a sign every PULSE_SECONDS while the body runs; none is left after it."""
    report_alive(file)
    try:
        with repeating(lambda: report_alive(file), PULSE_SECONDS):
            yield
    finally:
        _given.pop(file, None)
        _forget(file)


class Watch:
    """Which of the workers that have begun were silent for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen: dict[Hashable, tuple[bytes | None, float]] = {}
        self._files: set[Path] = set()

    def begin(self, file: Path) -> None:
        """Forget the signs of an earlier worker at the same work. One that waits for its place is not silent."""
        file.unlink(missing_ok=True)
        self._files.add(file)

    def close(self) -> None:
        """Remove the signs of workers that were ended, or whose step failed: a commit removes those of its own."""
        for file in self._files:
            _forget(file)

    def is_silent(self, worker: Hashable, file: Path) -> bool:
        try:
            found = file.read_bytes()
        except OSError:  # has not begun, or cannot be seen now
            return False
        seen, since = self._seen.get(worker, (None, 0.0))  # a file is empty while it is written
        if found != seen:
            self._seen[worker] = (found, since := time.monotonic())
        return time.monotonic() - since > self.seconds

    def end(self, worker: Hashable) -> None:
        self._seen.pop(worker, None)
