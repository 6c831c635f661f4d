"""Seconds and peak memory of a step's own work."""

import time
from pathlib import Path

import numpy as np
import pytest

from workflows.measures import measured


def test_the_seconds_are_those_of_the_block():
    with measured() as took:
        time.sleep(0.05)
    assert took["work_seconds"] >= 0.05


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures a peak anew")
def test_the_peak_is_that_of_the_block_and_not_of_what_came_before():
    size = 256 << 20
    with measured() as before:
        np.ones(size, dtype=np.uint8)
    with measured() as after:
        pass
    assert before["peak_rss"] - after["peak_rss"] > size / 2
    assert "peak_cuda" not in after or after["peak_cuda"] >= 0
