"""Seconds and peak memory of a step's own work."""

import mmap
import time
from pathlib import Path

import pytest

from workflows.steps.measures import largest, measured


def test_the_seconds_are_those_of_the_block():
    with measured() as took:
        time.sleep(0.05)
    assert took["work_seconds"] >= 0.05


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux measures a peak anew")
def test_the_peak_is_that_of_the_block_and_not_of_what_came_before():
    size = 256 << 20
    with measured() as before, mmap.mmap(-1, size) as fresh:  # no allocator has kept it from an earlier test
        for start in range(0, size, mmap.PAGESIZE):
            fresh[start] = 1
    with measured() as after:
        pass
    assert before["peak_rss"] - after["peak_rss"] > size / 2
    assert "peak_cuda" not in after or after["peak_cuda"] >= 0


def test_the_largest_of_peaks_is_taken_by_kind_and_from_those_that_know_it():
    assert largest({"peak_rss": 3, "peak_cuda": 9}, {"peak_rss": 5}, {}) == {"peak_cuda": 9, "peak_rss": 5}
    assert largest() == largest({}) == {}
