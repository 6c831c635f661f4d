"""A classifier in several processes of a Ray cluster, behind one address (Ray Serve)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from orchestration.store.artifacts import Store
from workflows.prediction.choice import Classifier
from workflows.runtime.engines import PRELOADED
from workflows.runtime.progress import Say
from workflows.runtime.requirements import needs_of


@contextmanager
def replicas_of(
    classifier: Classifier,
    store: Store,
    token: str | None,
    count: int,
    gpus: float | None,
    address: str | None,
    host: str,
    port: int,
    say: Say,
) -> Iterator[None]:
    """Keep replicas of a classifier on a cluster until the end of the block.

    Args:
        token: that requests must bear; None: none.
        count: of replicas.
        gpus: of each; None: one where the cluster has GPUs.
        address: host:port of the cluster; None: one is started on this machine.
        host, port: where the cluster's head listens.

    Raises ClusterError for a cluster that does not answer, lacks something or has no room.
    """
    from orchestration.ray_backend.engine import connected
    from orchestration.ray_backend.preflight import preflight
    from orchestration.ray_backend.serving import Replicas, on_ray_serve
    from workflows.prediction.server import Limits

    with connected(address, PRELOADED):
        if address is not None:
            fit = classifier.candidate.fit
            say(preflight(needs_of([replace(one, bytes=0) for one in (fit, *fit.inputs.values())], store), {}))
        build = partial(_application, classifier, store, token)
        with on_ray_serve(build, Replicas(count, gpus, 2 * Limits.batch_rows), host, port, shared=address is not None):
            yield


def _application(classifier: Classifier, store: Store, token: str | None) -> Any:
    """The server, in a replica's process."""
    from workflows.prediction.server import About, application
    from workflows.prediction.service import Service

    return application(Service(classifier, store).documents, About.of(classifier.candidate), token)
