"""How far a command of the store is: a line on standard error after ten seconds, then every thirty."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestration.store.scratch import StepProgress
from workflows.runtime.pace import Pace

FIRST_SECONDS, NEXT_SECONDS = 10.0, 30.0


@contextmanager
def progress_lines(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Within, lines such as "verify: 40 of 125 artifacts, 3.1 artifacts/s, 27 s left".

    What is yielded is called with the units done and the units in all.
    """
    pace, ended = Pace(label, time.monotonic()), threading.Event()

    def lines() -> None:
        seconds = FIRST_SECONDS
        while not ended.wait(seconds):
            print(pace.line(time.monotonic()), file=sys.stderr, flush=True)
            seconds = NEXT_SECONDS

    thread = threading.Thread(target=lines, daemon=True)
    thread.start()
    try:
        yield lambda done, of: pace.hear(StepProgress(done, of, unit), time.monotonic())
    finally:
        ended.set()
        thread.join()
