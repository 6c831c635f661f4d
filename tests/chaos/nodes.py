"""python -m tests.chaos.nodes STORE LOG kill|freeze SEED: a step on a cluster of two nodes, of which one is hit.

In a process of its own, for the process of the tests is connected to another cluster. Prints "hit 1, ran" at the end.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestration.execution.scheduler import run_plan
from orchestration.graph import Resources
from orchestration.ray_backend.engine import RayEngine, ray
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import squares

_MEMORY = 80 << 20


def children_of(pid: int) -> list[int]:
    """Process numbers of a process's children: a node's workers."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in found]


def main() -> int:
    place, log, fault, seed = sys.argv[1:]
    warnings.simplefilter("ignore")
    from ray.cluster_utils import Cluster

    draw, store = random.Random(int(seed)), open_store(Path(place))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": _MEMORY}
    )
    node = cluster.add_node(num_cpus=1, object_store_memory=_MEMORY)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    target = squares(8, Path(log), workers=2, seconds=0.4)
    target = dataclasses.replace(target, resources=Resources(cpus=1, gpus=0, workers=2))
    moment, hit = draw.randrange(1, 6), []

    def emit(kind: str, _: Any, told: dict[str, Any]) -> None:
        if kind == "shard" and told["done"] == moment and not hit:
            raylet = node.all_processes["raylet"][0].process.pid
            hit.extend([raylet, *children_of(raylet)])
            for pid in hit:
                with suppress(ProcessLookupError):  # a worker may end by itself
                    os.kill(pid, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)

    try:
        outcomes = run_plan(
            make_plan([target], store), lambda: RayEngine(store, emit, stall_seconds=8), lambda *event: emit(*event)
        )
    finally:
        for pid in hit if fault == "freeze" else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ray.shutdown()
        cluster.shutdown()
    print(f"hit {int(bool(hit))}, {outcomes[target.key].state}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
