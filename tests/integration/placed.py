"""Steps that write down where they run and what they see of it."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.ray_backend.pools import _ShardActor
from orchestration.store.arrow import table_of
from orchestration.store.files import json_bytes

HERE = "tests.integration.placed"


def seen(name: str) -> Step:
    return Step("seen", name, 1, f"{HERE}:fill_seen", {"name": name})


def fill_seen(work: StepContext) -> None:
    work.out.write("seen.json", json_bytes(place()))


def shards_seen(log: str, shards: int, cpus: float, gpus: float, workers: int) -> Step:
    """Sharded work; the shards' numerics tell where each was filled. The workers wait for each other in `log`."""
    setup = {"log": log, "workers": workers}
    asked = Resources(cpus=cpus, gpus=gpus, workers=workers)
    return Step(
        "sharded", f"{gpus} gpus", 1, f"{HERE}:Seeing", {"shards": shards, "log": log}, setup=setup, resources=asked
    )


class Seeing:
    """Writes a line to `log` when it starts; fills shards with nothing, the first at once, others when all started."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._log, self._workers = Path(setup["log"]), setup["workers"]
        with open(self._log, "a") as file:
            file.write("start\n")

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return int(work.identity["shards"])

    def fill(self, work: StepContext, shard: int) -> None:
        until = time.monotonic() + 300
        while shard and self._log.read_text().count("start") < self._workers:
            assert time.monotonic() < until, "the other workers never started"
            time.sleep(0.1)
        work.out.write_shard(shard, table_of([shard], {"x": np.zeros(1)}), place())


def greedy() -> Step:
    return Step("greedy", "greedy", 1, f"{HERE}:fill_greedy")


def fill_greedy(work: StepContext) -> None:
    """Takes 300 MB."""
    work.out.write("seen.json", json_bytes({"bytes": len(bytearray(300_000_000))}))


def place() -> dict[str, Any]:
    import ray

    context = ray.get_runtime_context()
    return {"node": context.get_node_id(), "process": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


class LostAtFirst(_ShardActor):
    """A pool's actor. The first four end together before they are ready, as with a node that hosts them all."""

    def __init__(self, reference: str, setup: Mapping[str, Any], *given: Any) -> None:
        super().__init__(reference, setup, *given)
        self._log = Path(f"{setup['log']}.asked")

    def ready(self) -> None:
        with self._log.open("a") as file:
            file.write("asked\n")
            first = file.tell() <= 4 * len("asked\n")
        while first and self._log.read_text().count("asked") < 4:
            time.sleep(0.02)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
