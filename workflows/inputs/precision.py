"""The precision that a model runs and is trained in, settled where a workflow is planned, for it is part of keys."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from orchestration.graph import key_of
from orchestration.store.fingerprint_cache import FingerprintCache

_SIXTEEN_BITS = ("bfloat16", "float16")


@dataclass(frozen=True)
class Machine:
    """What the machine that plans can do; `gpus` below is what a workflow file asks for, None: one if there are any.

    Attributes:
        gpu: whether torch finds a GPU.
        gpu_bf16, cpu_bf16: whether that, or the processor, multiplies bfloat16 much faster than float32.
    """

    gpu: bool
    gpu_bf16: bool
    cpu_bf16: bool

    def bf16(self, gpus: float | None) -> bool:
        """Whether products are much faster in bfloat16; on a cluster's GPU they are taken to be."""
        return (self.gpu_bf16 or not self.gpu) if self._on_gpu(gpus) else self.cpu_bf16

    def dtype(self, asked: str, stored: str, gpus: float | None) -> str:
        """Of the forward pass. auto: a GPU takes a checkpoint as it is, a processor in what it is fast in."""
        if asked != "auto":
            return asked
        if stored not in _SIXTEEN_BITS:
            return "float32"
        if self._on_gpu(gpus):
            return stored
        return "bfloat16" if self.cpu_bf16 else "float32"

    def _on_gpu(self, gpus: float | None) -> bool:
        return self.gpu if gpus is None else gpus > 0


def this_machine(facts: FingerprintCache) -> Machine:
    """Tried out once for a store and a machine: a key must not change with what else runs on the processor."""
    about = {
        "torch": metadata.version("torch"),
        "processor": _processor(),
        "devices": sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*")),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
    return Machine(**facts.get(f"machine {key_of(about)}", [], lambda: asdict(tried_out())))


def _processor() -> str:
    """Its model and what instructions it has, of the first core."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:  # not Linux
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(line for line in first.splitlines() if line.startswith(("model name", "flags", "Features", "CPU")))


def tried_out() -> Machine:
    """What torch finds, and a moment's products."""
    import torch

    from vocabsem_core.numerics.matmul import bf16_is_fast

    gpu = torch.cuda.is_available()
    return Machine(gpu, gpu and bf16_is_fast("cuda"), bf16_is_fast("cpu"))
