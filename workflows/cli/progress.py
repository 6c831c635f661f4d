"""Progress of a command of the store: a line on standard error after ten seconds, then every thirty."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestration.store.scratch import StepProgress
from workflows.runtime.pace import Pace, looking


@contextmanager
def progress_lines(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Within, lines such as "verify: 40 of 125 artifacts, 3.1 artifacts/s, 27 s left".

    What is yielded is called with the units done and the units in all.
    """
    pace = Pace(label, time.monotonic())

    def line() -> None:
        if pace.is_due(now := time.monotonic()):
            print(pace.line(now), file=sys.stderr, flush=True)

    with looking(line):
        yield lambda done, of: pace.hear(StepProgress(done, of, unit), time.monotonic())
