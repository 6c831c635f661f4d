"""Training functions for tests: they count; no model."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.ray_backend.train import WorkerContext

HERE = "tests.orchestration.trainings"


class Refused(Exception):
    """A mistake, raised on purpose."""

    exit_code = 2


def count(seat: WorkerContext, config: Mapping[str, Any]) -> None:
    """Count to `to`, a checkpoint of `sizes` bytes each, all workers in step.

    `dies`: the last worker is killed after that number, the first time; `most`: bytes that go into a file, as on a full
    disk.
    """
    import torch
    from torch import distributed

    with open(seat.scratch / f"starts {seat.rank}", "a", encoding="utf-8") as file:
        file.write(f"{seat.checkpoint.name if seat.checkpoint else None}\n")
    at = int((seat.checkpoint / "at").read_text()) if seat.checkpoint else 0
    if "most" in config:
        resource.setrlimit(resource.RLIMIT_FSIZE, (config["most"], config["most"]))
    while at < config["to"]:
        at += 1
        if seat.world > 1:
            distributed.all_reduce(torch.zeros(1))

        def fill(folder: Path, at: int = at) -> None:
            (folder / "at").write_text(str(at))
            (folder / "weights").write_bytes(bytes(config["sizes"][at - 1] if "sizes" in config else 1))

        seat.keep(fill)
        if (at, seat.rank) == (config.get("dies"), seat.world - 1) and seat.checkpoint is None:
            os.kill(os.getpid(), signal.SIGKILL)


def refuse(seat: WorkerContext, config: Mapping[str, Any]) -> None:
    """The first worker refuses, all others wait for it in a sum."""
    import torch
    from torch import distributed

    with open(seat.scratch / f"starts {seat.rank}", "a", encoding="utf-8") as file:
        file.write("start\n")
    if seat.rank == 0:
        raise Refused("there is no such thing: expected another")
    distributed.all_reduce(torch.zeros(1))


def exhaust(seat: WorkerContext, config: Mapping[str, Any]) -> None:
    """The first worker has no memory, all others wait for it in a sum."""
    import torch
    from torch import distributed

    with open(seat.scratch / f"starts {seat.rank}", "a", encoding="utf-8") as file:
        file.write("start\n")
    if seat.rank == 0:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    distributed.all_reduce(torch.zeros(1))


def look_for_gpus(seat: WorkerContext, config: Mapping[str, Any]) -> None:
    """Keep what the worker would see of its node's GPUs."""
    seat.keep(lambda folder: (folder / "seen").write_text(str(os.environ.get("CUDA_VISIBLE_DEVICES"))))


def note_gpus(setup: Mapping[str, Any], pack: Sequence[Mapping[str, Any]], watch: Any) -> list[dict[str, Any]]:
    """The same of a search's worker."""
    (Path(setup["folder"]) / "seen").write_text(str(os.environ.get("CUDA_VISIBLE_DEVICES")))
    return [{**one, "ended": "finished", "validation": 1.0, "loss": 0.0, "curve": []} for one in pack]
