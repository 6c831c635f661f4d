"""Where a workflow's steps run: in this process, on a cluster of its own, or on one that was asked beforehand."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from orchestration.execution.scheduler import Emit, Engine, InlineEngine
from orchestration.graph import Step
from orchestration.ray_backend.placement import GB
from orchestration.store.artifacts import Store
from workflows.config.compare import AnyExecution
from workflows.errors import ConfigError, nearest
from workflows.runtime.progress import Say
from workflows.runtime.requirements import RECORDED, needs_of

if TYPE_CHECKING:
    from orchestration.ray_backend.engine import RayEngine

# What workers import for seconds, and nearly every run needs; the first first.
PRELOADED = ("torch", "transformers.modeling_utils", "sklearn.linear_model", "scipy.stats")


def open_engine(
    execution: AnyExecution,
    store: Store,
    steps: Sequence[Step],
    missing: Sequence[str],
    emit: Emit,
    say: Say,
) -> Engine:
    """The engine for the steps that will run. `missing`: what is known to be missing on a cluster.

    Raises ClusterError where a cluster that is named does not answer, or lacks something.
    """
    if execution.executor == "inline":
        return InlineEngine(store, emit, RECORDED)
    if execution.address in (None, "local"):
        return _ray_engine(execution, store, emit)
    return checked_engine(execution, store, steps, missing, emit, say)


def checked_engine(
    execution: AnyExecution,
    store: Store,
    steps: Sequence[Step],
    missing: Sequence[str],
    emit: Emit,
    say: Say,
) -> RayEngine:
    """The engine on a named cluster, once nothing is missing there. Raises ClusterError with all that is."""
    from orchestration.ray_backend.preflight import preflight

    needs = needs_of(steps, store, missing)
    engine = _ray_engine(execution, store, emit)
    try:
        say(preflight(needs, reserves(execution)))
    except BaseException:
        engine.close()
        raise
    return engine


def _ray_engine(execution: AnyExecution, store: Store, emit: Emit) -> RayEngine:
    from orchestration.ray_backend.engine import RayEngine  # imports Ray: only when there is work

    return RayEngine(store, emit, execution.address, execution.stall_seconds, reserves(execution), RECORDED, PRELOADED)


def reserves(execution: AnyExecution) -> dict[str, dict[str, float]]:
    """What is reserved for kinds of steps, in bytes and without what is left open."""
    found = {}
    for kind, asked in execution.resources.items():
        memory = {"memory": int(asked.memory_gb * GB)} if asked.memory_gb is not None else {}
        found[kind] = {**({"cpus": asked.cpus} if asked.cpus is not None else {}), **memory}
    return found


def check_reserves(execution: AnyExecution, kinds: Collection[str]) -> None:
    """Raises ConfigError for a kind of step that is none of those a workflow has."""
    for kind in execution.resources:
        if kind not in kinds:
            raise ConfigError(
                f"execution.resources: no step of kind {kind!r} in this workflow; {nearest(kind, sorted(kinds))}",
                ("execution", "resources", kind),
            )
