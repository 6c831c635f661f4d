"""What a step's function gets, and how it is called: in this process or in a worker's."""

from __future__ import annotations

import importlib
import platform
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from orchestration.execution.heartbeat import pulse, report_alive
from orchestration.graph import Step
from orchestration.store.artifacts import Artifact, Store
from orchestration.store.leases import Lease
from orchestration.store.scratch import SIGNS, WHOLE, StepProgress, annotate, begin_anew, scratch_folder, tell
from orchestration.store.transfers import transfers_reported
from orchestration.store.writer import Writer


@dataclass(frozen=True)
class StepContext:
    """One artifact to fill: plain data, so that it travels to workers.

    Attributes:
        identity: the step's identity fields; all that may decide the output, with `inputs`.
        inputs: role -> committed artifact.
        local: values that do not change the output: paths, batch sizes.
        out: the writer of the artifact.
        scratch: a folder that need not exist and outlives a killed attempt; it goes when the artifact is committed.
        packages: whose versions join the provenance.
    """

    identity: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    local: Mapping[str, Any]
    out: Writer
    scratch: Path
    packages: tuple[str, ...] = ()

    def sign_file(self, shard: int | None = None) -> Path:
        """Where the worker at a shard, or at the whole of a plain step, leaves its signs of life."""
        return self.scratch / SIGNS / ("step" if shard is None else str(shard))

    def report_alive(self, shard: int) -> None:
        """Say that a batch of a shard is done: a worker that does not for execution.stall_seconds is replaced."""
        report_alive(self.sign_file(shard))

    def tell(self, done: float, of: float, unit: str, note: str = "", part: str = WHOLE, at_once: bool = False) -> None:
        """Report progress of the work, or of a part of it, to whoever watches the run.

        Args:
            done: units that are done.
            of: units in all; 0: not known.
            unit: their name in the plural: "rows".
            note: more to show: "best 0.512".
            part: name of the part, where several processes report.
            at_once: whether to write it even if the last report was a moment ago.
        """
        tell(self.scratch, StepProgress(done, of, unit, note), part, at_once)


class ShardWorker(Protocol):
    """A step's worker class: loads once what `setup` names, then fills shards."""

    def __init__(self, setup: Mapping[str, Any]) -> None: ...

    @staticmethod
    def shard_count(work: StepContext) -> int:
        """How many shards the artifact has; called on the driver, so it reads manifests only."""
        ...

    def fill(self, work: StepContext, shard: int) -> None:
        """Write one shard with `work.out.write_shard`; a long one calls `work.report_alive(shard)` on its way."""
        ...


def work_of(step: Step, store: Store, lease: Lease | None = None, packages: tuple[str, ...] = ()) -> StepContext:
    """What a step's function gets. Raises KeyError for an input not committed: a scheduler's mistake, not a user's."""
    inputs = {}
    for role, source in step.inputs.items():
        artifact = store.find(source)
        if artifact is None:
            raise KeyError(f"{step.label} needs {source.label}, which is not committed")
        inputs[role] = artifact
    scratch = scratch_folder(store.root, step.folder)
    return StepContext(step.identity, inputs, step.local, store.writer(step, lease), scratch, packages)


def callable_of(reference: str) -> Any:
    """The object "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def run_whole(reference: str, work: StepContext) -> None:
    """Fill and commit an artifact in one call; what the function returns joins the provenance."""
    started = time.time()
    work.out.begin()
    begin_anew(work.scratch)
    with transfers_reported(partial(annotate, work.scratch)):
        told = callable_of(reference)(work) or {}
    work.out.commit({**provenance(started, work.packages), **told})
    shutil.rmtree(work.scratch, ignore_errors=True)


def run_watched(reference: str, work: StepContext) -> None:
    """`run_whole` in a process of its own, which a driver watches."""
    with pulse(work.sign_file()):
        run_whole(reference, work)


def fill_shard(worker: ShardWorker, work: StepContext, shard: int) -> None:
    """Write one shard; transfers to and from a bucket are shown as its notes."""
    with transfers_reported(partial(annotate, work.scratch, part=str(shard))):
        worker.fill(work, shard)


def commit_shards(work: StepContext, started: float, count: int) -> None:
    """Commit an artifact whose shards are all there; what workers measured of them joins the provenance."""
    work.out.commit({**provenance(started, work.packages), **work.out.measured_in_all()}, count)
    shutil.rmtree(work.scratch, ignore_errors=True)


def provenance(started: float, packages: Sequence[str]) -> dict[str, Any]:
    """Where, when and with what an artifact was made. Never part of a key."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": versions_of(packages),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
    }


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Of those that are installed."""
    return {name: found for name in packages if (found := version_of(name))}


@cache  # searching the installed packages takes longer than a small step
def version_of(package: str) -> str | None:
    """Of an installed package, None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
