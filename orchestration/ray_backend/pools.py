"""Pools of Ray actors that load a worker once and pull shards.

A pool has as many actors as shards wait for one, up to its size. One without room waits for it, without holding a
shard: the autoscaler of a cluster that has one sees what it waits for and adds a node.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import ClusterError
from orchestration.execution.work import StepContext, callable_of, fill_shard
from orchestration.graph import Resources, Step
from orchestration.ray_backend.placement import gpus_of, hide_gpus, limit_memory, use_reserved_cores, with_cores

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before the import that reads it; a user's own value stays
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # today's behaviour is tomorrow's default: no warning

import ray
import ray.exceptions

_CORES_BESIDE_A_GPU = 4  # of a worker that asks for none itself: the rest is left for the steps beside it
RETRIES = 3  # of work whose process died; an exception in a step is not retried


class _ShardActor:
    """Holds a worker. It is made by the first call, so that an error in making it is that call's own error."""

    def __init__(self, reference: str, setup: Mapping[str, Any], gpus: float, memory: int | None) -> None:
        self._reference, self._setup, self._memory = reference, setup, memory
        self._worker: Any = None
        if not gpus:
            hide_gpus()

    def ready(self) -> None:
        """Returns once the actor has a place."""

    def fill(self, work: StepContext, shard: int) -> None:
        work.report_alive(shard)  # now it has begun: loading the worker counts
        if self._worker is None:
            use_reserved_cores()
            limit_memory(self._memory)
            self._worker = callable_of(self._reference)(self._setup)
        fill_shard(self._worker, work, shard)


@dataclass
class Sharded:
    """A sharded step under way."""

    step: Step
    asked: Resources
    work: StepContext
    count: int
    open: int
    started: float
    error: BaseException | None = None
    detail: str = ""


@dataclass(eq=False)
class Pool:
    """Actors of one worker name, and the shards that wait for one."""

    make: Callable[[], Any]
    size: Callable[[], int]  # actors at most; grows with the cluster
    starting: dict[ray.ObjectRef, Any] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    pending: deque[tuple[Sharded, int]] = field(default_factory=deque)
    busy: dict[ray.ObjectRef, tuple[Any, Sharded, int]] = field(default_factory=dict)
    lost: int = 0  # times in turn that actors died before any was ready
    _beside: set[ray.ObjectRef] = field(default_factory=set)  # of `starting`, at the last time that was counted

    def grow(self) -> None:
        """Ask for an actor for each shard that waits, as far as the pool may grow."""
        if not self.pending:
            return
        there = len(self.busy) + len(self.idle) + len(self.starting)
        for _ in range(min(self.size(), len(self.busy) + len(self.pending)) - there):
            actor = self.make()
            self.starting[actor.ready.remote()] = actor

    def take(self, ready: ray.ObjectRef) -> None:
        """An actor is there."""
        self.idle.append(self.starting.pop(ready))
        self.lost = 0

    def lose(self, ready: ray.ObjectRef) -> bool:
        """An actor died before it was ready; whether that was once too often.

        Those that started beside it may go with it, as their node did, and are the same loss.
        """
        del self.starting[ready]
        if ready in self._beside:
            return False
        self.lost += 1
        self._beside = set(self.starting)
        return self.lost > RETRIES

    def end_idle(self) -> None:
        """End the actors for whom no shard is left: they hold, or wait for, what others need."""
        for actor in (*self.idle, *self.starting.values()):
            ray.kill(actor)
        self.idle.clear()
        self.starting.clear()

    def end(self) -> None:
        self.end_idle()
        for actor, _, _ in self.busy.values():
            ray.kill(actor)


def make_pool(step: Step, setup: Mapping[str, Any], asked: Resources) -> Pool:
    """An empty pool. Raises ClusterError where not even one worker fits the cluster."""
    _, options = pool_size(asked, alive_nodes())
    memory = {"memory": asked.memory} if asked.memory is not None else {}
    actor = ray.remote(_ShardActor).options(**options, **memory)

    def make() -> Any:
        return actor.remote(step.run, dict(setup), options["num_gpus"], asked.memory)

    def size() -> int:
        if asked.workers is not None:
            return asked.workers
        try:
            return pool_size(asked, alive_nodes())[0]
        except ClusterError:  # its nodes went: one waits for the next
            return 1

    return Pool(make, size)


def alive_nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster has in all."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def pool_size(asked: Resources, nodes: Sequence[Mapping[str, float]]) -> tuple[int, dict[str, float]]:
    """How many workers fit the nodes, and what each reserves. Raises ClusterError where not even one fits.

    A node without cores has no part in it. Where the cores of each are left open, they are as many as let all workers
    fit: a node's share, and beside a GPU a few of it.
    """
    nodes, gpus = with_cores(nodes), gpus_of(asked, nodes)
    if gpus > 1 and gpus % 1:
        raise ClusterError(f"a worker asks for {gpus:g} GPUs; above one, Ray gives whole ones. Ask for a whole number.")
    able = [node for node in nodes if _by_gpu(node, gpus) >= 1]
    if not able:
        most_gpus = max(node.get("GPU", 0) for node in nodes)
        raise ClusterError(f"a worker asks for {gpus:g} GPUs; the largest node has {most_gpus:g}. Ask for fewer.")
    by_gpu = sum(_by_gpu(node, gpus) for node in able) if gpus else math.inf
    wanted = int(min(asked.workers or math.inf, by_gpu)) if asked.workers or gpus else 1

    def fitting(cpus: float) -> int:
        each = (min(node.get("CPU", 1) / cpus if cpus else wanted, _by_gpu(node, gpus)) for node in able)
        return min(wanted, sum(map(int, each)))

    if asked.cpus is None:
        share = int(min(node.get("CPU", 1) for node in able))
        tried = range(min(share, _CORES_BESIDE_A_GPU) if gpus else share, 1, -1)
        cpus: float = next((cpus for cpus in tried if fitting(cpus) == wanted), 1)
    else:
        cpus = asked.cpus
    if not fitting(cpus):
        free = " next to its GPUs" if gpus else ""
        raise ClusterError(f"a worker asks for {cpus:g} cores; no node has as many{free}. Ask for fewer.")
    return fitting(cpus), {"num_cpus": cpus, "num_gpus": gpus}


def _by_gpu(node: Mapping[str, float], gpus: float) -> float:
    """Workers that a node's GPUs are enough for: a fraction is of one GPU, never of two."""
    if not gpus:
        return math.inf
    return node.get("GPU", 0) // gpus if gpus >= 1 else int(node.get("GPU", 0)) * int(1 / gpus)


def group_size(asked: Resources, nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What each worker reserves of a group that has to be there as a whole.

    Raises ClusterError where not all of it fits, as Ray would wait for ever; and where several shall share a GPU.
    """
    if asked.workers and asked.workers > 1 and 0 < (asked.gpus or 0) < 1:
        raise ClusterError(
            f"{asked.workers} workers of {asked.gpus:g} GPUs each are asked for; workers that train together (by NCCL) "
            "cannot share a GPU. Give each a whole one or none, or take one worker."
        )
    count, options = pool_size(asked, nodes)
    if asked.workers and count < asked.workers:
        raise ClusterError(
            f"{asked.workers} workers of {options['num_cpus']:g} cores and {options['num_gpus']:g} GPUs are needed at "
            f"once, and the cluster has room for {count}. Ask for fewer, or for less of each."
        )
    return options


def has_died(error: BaseException | None) -> bool:
    """Whether the worker is gone for good, rather than its work in error."""
    return isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)
