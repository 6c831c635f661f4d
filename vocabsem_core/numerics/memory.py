"""Memory: how much there is, how much was used, what a pass may take, and what becomes of tensors that are freed."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path
from typing import Any

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_LARGEST = 1 << 30  # bytes; mallopt takes an int
_PASS_BYTES = 8 << 30  # of activations: a model of 7 B weights comes to 1,900 tokens a pass
_ACTIVATIONS = 34  # bytes a token and layer, times the width, in 16 bits (Korthikanti et al. 2022, section 4.1)


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


def tokens_of_a_pass(config: Any) -> int:
    """Tokens of a forward pass in training, at most: 8 GiB of activations are kept for the backward pass.

    By a transformers configuration alone, not by what is free: it decides which prompts are one pass, and with that the
    masks of dropout.
    """
    text = config.get_text_config(decoder=True)
    return _PASS_BYTES // (_ACTIVATIONS * text.hidden_size * text.num_hidden_layers)


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


def forget_peaks() -> None:
    """Begin to measure the peaks of `peak_bytes` anew, where the system can: Linux for the process, CUDA for itself."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> dict[str, int]:
    """The most memory since the last `forget_peaks`, in bytes.

    `peak_rss` is of the whole process: libraries, loaded models and mapped files that it touched are in it. `peak_cuda`
    is of this process's tensors on the current GPU, and missing where it uses none.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        found = {"peak_rss": int(lines["VmHWM"].split()[0]) * 1024}
    else:  # since the process began
        found = {
            "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        }
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        found["peak_cuda"] = torch.cuda.max_memory_allocated()
    return found
