"""What a step's own work took: seconds and peak memory, without process start, imports and model loading."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the block; the dictionary is filled at its end, with what a step's provenance shall hold.

    `work_seconds` are of the clock; `peak_rss` and on a GPU `peak_cuda` are bytes (see `vocabsem_core.memory`).
    """
    from vocabsem_core.memory import forget_peaks, peak_bytes

    found: dict[str, float] = {}
    forget_peaks()
    started = time.perf_counter()
    yield found
    found["work_seconds"] = round(time.perf_counter() - started, 4)
    found |= peak_bytes()
