"""A web application on a Ray cluster: Ray Serve keeps replicas of it and shares requests out among them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestration.errors import ClusterError
from orchestration.graph import Resources
from orchestration.host.signals import keeping_signals
from orchestration.ray_backend.placement import hide_gpus, use_reserved_cores
from orchestration.ray_backend.pools import alive_nodes, pool_size, ray

_NAME = "vocabsem"
_HEAD = "node:__internal_head__"  # a resource that the head alone has
_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Replicas:
    """How an application is kept.

    Attributes:
        count: processes, each with the whole application.
        gpus: of each, a fraction of one or whole ones; None: one where the cluster has GPUs.
        requests: that one has in hand at most; the others wait for whichever is free first.
    """

    count: int
    gpus: float | None
    requests: int


@contextmanager
def on_ray_serve(build: Callable[[], Any], replicas: Replicas, host: str, port: int, shared: bool) -> Iterator[None]:
    """Keep an application on the cluster that this process is connected to, until the end of the block.

    Args:
        build: makes the ASGI application, in the process of each replica; it is pickled.
        replicas: how many, and what each has.
        host, port: where the cluster's head listens.
        shared: whether the cluster outlives this process; one that does not takes all down with it.

    Raises ClusterError for a cluster without room or with another Ray Serve, and where the replicas do not start.
    """
    serve, options = _ray_serve(), _reserved(replicas)
    _check_is_head()
    there = serve.status()
    if there.applications or there.proxies:
        raise ClusterError(
            "Ray Serve runs on this cluster already, and has one address for all: end it with `serve shutdown`, or "
            "name another cluster"
        )
    try:
        with keeping_signals():
            serve.start("HeadOnly", {"host": host, "port": port}, logging_config=_QUIET)
            _deploy(serve, build, replicas, options)
        yield
    finally:
        if shared:
            serve.shutdown()


def _deploy(serve: Any, build: Callable[[], Any], replicas: Replicas, options: dict[str, float]) -> None:
    """Raises ClusterError with what a replica raised."""
    deployment = serve.deployment(serve.ingress(_keeping(build, options))()).options(
        num_replicas=replicas.count,
        ray_actor_options=options,
        max_ongoing_requests=replicas.requests,
        logging_config=_QUIET,
    )
    try:
        serve.run(deployment.bind(), name=_NAME, logging_config=_QUIET)
    except RuntimeError as error:  # whose text ends with the replica's traceback
        raise ClusterError(f"the replicas did not start: {str(error).strip().splitlines()[-1]}") from error


def follow(say: Callable[[str], None]) -> None:
    """Say how many replicas answer, as often as that changes. Raises ClusterError where the cluster is gone."""
    serve, known = _ray_serve(), None
    while True:
        try:
            (found,) = serve.status().applications[_NAME].deployments.values()
        except (KeyError, ray.exceptions.RayError) as error:
            raise ClusterError("the cluster or its Ray Serve is gone; start the command again") from error
        running = found.replica_states.get("RUNNING", 0)
        if running != known:
            known, of = running, sum(found.replica_states.values())
            say(f"{running} of {of} replicas {'answers' if of == 1 else 'answer'} {found.message}".rstrip())
        time.sleep(_LOOK_SECONDS)


def _check_is_head() -> None:
    """Raises ClusterError where this is another of the cluster's machines than the one that will listen."""
    head = next(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"] and _HEAD in node["Resources"])
    if (here := ray.util.get_node_ip_address()) != head:
        raise ClusterError(f"this is {here}, and requests come to the cluster's head: run the command there, on {head}")


def _ray_serve() -> Any:
    """Raises ClusterError where it is not installed."""
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"Ray Serve is not installed ({error.name} is missing): `pip install 'vocabsem[serve]'`, on every node"
        ) from error
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return serve


def _reserved(replicas: Replicas) -> dict[str, float]:
    """What each replica reserves. Raises ClusterError where not all fit, since Ray would wait for ever."""
    asked = Resources(cpus=None, gpus=replicas.gpus, workers=replicas.count)
    room, options = pool_size(asked, alive_nodes())
    if room < replicas.count:
        raise ClusterError(
            f"{replicas.count} replicas of {options['num_cpus']:g} cores and {options['num_gpus']:g} GPUs are asked "
            f"for, and the cluster has room for {room}. Ask for fewer, or for less of a GPU each."
        )
    return options


def _keeping(build: Callable[[], Any], options: dict[str, float]) -> Callable[[], Any]:
    """The same in a process that keeps to what it reserved. A function, as Ray Serve knows a builder by that."""

    def built() -> Any:
        if not options["num_gpus"]:
            hide_gpus()
        use_reserved_cores()
        return build()

    return built
