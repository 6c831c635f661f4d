"""What a step's own work took, without process start, imports and model loading; and what it was computed with."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the block; the dictionary is filled at its end, with what a step's provenance shall hold.

    `work_seconds` are of the clock; `peak_rss` and on a GPU `peak_cuda` are bytes: see `numerics.memory`.
    """
    from vocabsem_core.numerics.memory import forget_peaks, peak_bytes

    found: dict[str, float] = {}
    forget_peaks()
    started = time.perf_counter()
    yield found
    found["work_seconds"] = round(time.perf_counter() - started, 4)
    found |= peak_bytes()


def largest(*peaks: Mapping[str, float]) -> dict[str, float]:
    """Of each kind of peak the largest; what one of them does not know is left to the others."""
    names = sorted({name for one in peaks for name in one})
    return {name: max(one[name] for one in peaks if name in one) for name in names}


def numerics(device: str) -> dict[str, Any]:
    """What decides the last digits of what this process computes on "cpu" or a "cuda" device, for the manifest."""
    import torch

    return {
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
