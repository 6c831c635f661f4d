"""Memory: how much there is, and how the C library's allocator treats large tensors that come and go."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGEST = 1 << 30  # bytes; mallopt takes an int


def keep_freed_memory() -> None:
    """Let this process keep memory it frees, up to 1 GiB a piece, instead of giving it back to the system.

    A forward pass frees and asks for the same large tensors at every layer; by default glibc maps each anew, and the
    system fills every page with zeros again. Does nothing where the allocator is not glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:  # musl has none
        for option, value in (
            (_M_MMAP_THRESHOLD, _LARGEST),
            (_M_TRIM_THRESHOLD, _LARGEST),
            (_M_TOP_PAD, 64 << 20),
        ):
            mallopt(option, value)


def free_bytes() -> int:
    """Memory that can be had without swapping: what Linux says, within this container's limit."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").is_file() and (
        most := (group / "memory.max").read_text(encoding="ascii").strip()
    ) != "max":
        free = min(free, int(most) - int((group / "memory.current").read_text(encoding="ascii")))
    return max(0, free)
