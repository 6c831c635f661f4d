"""The engine on Ray: plain steps as tasks, sharded steps on pools of actors that load once and pull shards.

Only artifacts' paths travel through Ray, never tensors: what a task leaves is on disk, and outlives the cluster.
Ray retries work whose process or node died; the store's commit rules make a step that ran twice harmless.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestration.errors import ClusterError, Stalled
from orchestration.execution.heartbeat import Watch
from orchestration.execution.scheduler import Emit, Finished, worker_name
from orchestration.execution.work import StepContext, callable_of, commit_shards, run_watched, work_of
from orchestration.graph import Resources, Step
from orchestration.host.signals import keeping_signals
from orchestration.ray_backend.jobs import about_the_token
from orchestration.ray_backend.placement import (
    Reserves,
    check_fits,
    explained,
    hide_gpus,
    memory_limit,
    ray_options,
    reserved,
    use_reserved_cores,
)
from orchestration.ray_backend.pools import RETRIES, Pool, Sharded, alive_nodes, has_died, make_pool, ray
from orchestration.ray_backend.private_ray import in_our_folder, private_ray
from orchestration.store.artifacts import Store
from orchestration.store.leases import Lease

_KNOCK_SECONDS = 5.0
_LOOK_AROUND_SECONDS = 5.0  # between looks at what room the cluster has
_LOOK_SECONDS = 1.0  # between looks at their signs of life
STALL_SECONDS = 600.0
_STALLS = 3  # of one task or shard, before it fails


def _run_alone(reference: str, work: StepContext, gpus: float, memory: int | None) -> None:
    """A step in a process that Ray may use again for another."""
    if not gpus:
        hide_gpus()
    use_reserved_cores()
    with memory_limit(memory):
        run_watched(reference, work)


class RayEngine:
    """Runs steps on a Ray cluster: the one this process is connected to, the one at `address`, or one of its own.

    A worker without a sign of life for `stall_seconds` is ended, and another begins its task or shard anew.
    `reserves` replaces resources of steps by their kind; `packages` are those whose versions are recorded; `preload`
    are modules that most workers import, for a cluster of its own. Raises ClusterError where `address` does not answer.
    """

    def __init__(
        self,
        store: Store,
        emit: Emit,
        address: str | None = None,
        stall_seconds: float = STALL_SECONDS,
        reserves: Reserves | None = None,
        packages: tuple[str, ...] = (),
        preload: Sequence[str] = (),
    ) -> None:
        self.store = store
        self._emit = emit
        self._reserves = reserves or {}
        self._packages = packages
        self._fitting: set[tuple[str, Resources]] = set()  # kinds of steps that some node has room for
        self._connection = ExitStack()
        if not ray.is_initialized():
            self._connection.enter_context(connected(address, preload))
        self._cores = _cores()
        self._tasks: dict[ray.ObjectRef, tuple[Step, StepContext]] = {}
        self._watch = Watch(stall_seconds)
        self._stalls: Counter[Path] = Counter()
        self._deaths: Counter[Path] = Counter()  # of workers, by the shard in their hands
        self._looked = time.monotonic()
        self._pools: dict[str, Pool] = {}
        self._done: deque[Finished] = deque()

    def accepts(self, step: Step) -> bool:
        """Few plain steps at a time: each is a process, and light ones reserve no core. Workers never run dry.

        Steps that wait are counted apart and hold up none that computes; beyond one a core, their workers would queue.
        """
        if step.setup is None:
            waits = step.resources.waits
            beside = sum(other.resources.waits == waits for other, _ in self._tasks.values())
            return beside < (max(2, self._cores) if waits else self._cores + 1)
        pool = self._pools.get(worker_name(step.run, step.setup))
        return pool is None or len(pool.pending) < 2 * pool.size()

    def start(self, step: Step, lease: Lease) -> None:
        try:
            work = work_of(step, self.store, lease, self._packages)
            asked = reserved(step, self._reserves)
            if (step.name, asked) not in self._fitting:
                check_fits(step, asked, alive_nodes())
                self._fitting.add((step.name, asked))
            if step.setup is None:
                self._submit(step, work)
            else:
                self._start_sharded(step, step.setup, work, asked)
        except Exception as error:  # of this step, and not of those beside it
            self._done.append(Finished(step, error))

    def next(self, seconds: float | None) -> Finished | None:
        deadline = time.monotonic() + seconds if seconds is not None else math.inf
        cores = self._cores  # once they are more, there is room for another plain step
        while not self._done and self._cores <= cores and time.monotonic() < deadline:
            refs = list(self._tasks) + [ref for pool in self._pools.values() for ref in (*pool.busy, *pool.starting)]
            patience = max(0.0, min(_LOOK_AROUND_SECONDS, deadline - time.monotonic()))
            found, _ = ray.wait(refs, num_returns=1, timeout=patience)
            self._look_around()
            if time.monotonic() - self._looked > _LOOK_SECONDS:
                self._replace_silent()
                continue  # what is ready will be so again, unless it was replaced
            if not found:
                continue
            (ready,) = found
            error = _error_of(ready)
            self._watch.end(ready)
            if ready in self._tasks:
                step, _ = self._tasks.pop(ready)
                told = error and explained(error, step, reserved(step, self._reserves), has_died(error))
                self._done.append(Finished(step, told, _detail_of(ready, error)))
            elif (found_in := next((name for name, p in self._pools.items() if ready in p.starting), None)) is not None:
                self._actor_ready(found_in, ready, error)
            else:
                self._shard_done(ready, error)
                break  # there may be room for another sharded step, before its workers run dry
        return self._done.popleft() if self._done else None

    def _look_around(self) -> None:
        """Use what room the cluster has now."""
        self._cores = _cores()
        for pool in self._pools.values():
            pool.grow()

    def _submit(self, step: Step, work: StepContext) -> None:
        asked = reserved(step, self._reserves)
        options = ray_options(asked, alive_nodes())
        task = ray.remote(_run_alone).options(name=step.label, max_retries=RETRIES, **options)
        self._watch.begin(work.sign_file())
        self._tasks[task.remote(step.run, work, options["num_gpus"], asked.memory)] = (step, work)

    def _replace_silent(self) -> None:
        """End workers without a sign of life, and begin their work anew; what one still writes later does no harm."""
        self._looked = time.monotonic()
        for ref, (step, work) in list(self._tasks.items()):
            if self._watch.is_silent(ref, work.sign_file()):
                self._watch.end(ref)
                ray.cancel(ref, force=True)
                del self._tasks[ref]
                if (error := self._stalled(step, work.sign_file())) is None:
                    self._submit(step, work)
                else:
                    self._done.append(Finished(step, error))
        for name, pool in list(self._pools.items()):
            for ref, (actor, sharded, shard) in list(pool.busy.items()):
                if self._watch.is_silent(ref, sharded.work.sign_file(shard)):
                    self._watch.end(ref)
                    ray.kill(actor)
                    del pool.busy[ref]
                    error = self._stalled(sharded.step, sharded.work.sign_file(shard))
                    if error is None and sharded.error is None:
                        pool.pending.appendleft((sharded, shard))
                    else:
                        self._count(pool, sharded, error, "")
                    self._feed(name, pool)

    def _stalled(self, step: Step, file: Path) -> Stalled | None:
        """Say that a worker is replaced; the error where that was done often enough."""
        self._stalls[file] += 1
        self._emit("stalled", step, {"seconds": self._watch.seconds, "times": self._stalls[file]})
        if self._stalls[file] < _STALLS:
            return None
        return Stalled(
            f"its worker gave no sign of life for {self._watch.seconds:g} s, {_STALLS} times in turn; look at the "
            "cluster's nodes with `ray status`, or raise execution.stall_seconds"
        )

    def close(self) -> None:
        for pool in self._pools.values():
            pool.end()
        self._connection.close()
        self._watch.close()

    def _start_sharded(self, step: Step, setup: Mapping[str, Any], work: StepContext, asked: Resources) -> None:
        work.out.begin()
        count = callable_of(step.run).shard_count(work)
        missing = [shard for shard in range(count) if not work.out.shard_committed(shard)]
        sharded = Sharded(step, asked, work, count, len(missing), time.time())
        if not missing:
            self._close_sharded(sharded)
            return
        name = worker_name(step.run, setup)
        if name not in self._pools:
            self._pools[name] = make_pool(step, setup, asked)
        pool = self._pools[name]
        pool.pending.extend((sharded, shard) for shard in missing)
        self._feed(name, pool)

    def _actor_ready(self, name: str, ready: ray.ObjectRef, error: BaseException | None) -> None:
        pool = self._pools[name]
        if error is None:
            pool.take(ready)
        elif pool.lose(ready) and pool.pending:  # else another is asked for, where there is work for it
            sharded, _ = pool.pending.popleft()
            self._count(pool, sharded, error, str(error))
        self._feed(name, pool)

    def _shard_done(self, ready: ray.ObjectRef, error: BaseException | None) -> None:
        """A shard came back: done, in error, or undone because its worker or node died, and then another takes it.

        Ray's own retries are of no use here: they are spent in a second, while a dead node's actor is not yet known to
        be dead.
        """
        name, pool = next((name, pool) for name, pool in self._pools.items() if ready in pool.busy)
        actor, sharded, shard = pool.busy.pop(ready)
        died = has_died(error)
        if died:
            ray.kill(actor)  # one that was only out of reach may come back
            self._deaths[sharded.work.sign_file(shard)] += 1
        else:
            pool.idle.append(actor)
        if died and sharded.error is None and self._deaths[sharded.work.sign_file(shard)] <= RETRIES:
            pool.pending.appendleft((sharded, shard))
        else:
            self._count(pool, sharded, error, _detail_of(ready, error))
        self._feed(name, pool)

    def _count(self, pool: Pool, sharded: Sharded, error: BaseException | None, detail: str) -> None:
        """One shard less; the first error takes the waiting ones of its step along."""
        sharded.open -= 1
        if error is not None and sharded.error is None:
            sharded.error, sharded.detail = explained(error, sharded.step, sharded.asked, has_died(error)), detail
            dropped = [item for item in pool.pending if item[0] is sharded]
            sharded.open -= len(dropped)
            pool.pending = deque(item for item in pool.pending if item[0] is not sharded)
        elif sharded.error is None:
            self._emit("shard", sharded.step, {"done": sharded.count - sharded.open, "of": sharded.count})
        if not sharded.open:
            self._close_sharded(sharded)

    def _feed(self, name: str, pool: Pool) -> None:
        """Give shards to idle actors, ask for more actors where shards are left, end the actors where none is."""
        while pool.idle and pool.pending:
            actor = pool.idle.pop()
            sharded, shard = pool.pending.popleft()
            self._watch.begin(sharded.work.sign_file(shard))
            pool.busy[actor.fill.remote(sharded.work, shard)] = (actor, sharded, shard)
        pool.grow()
        if not pool.pending:
            pool.end_idle()
            if not pool.busy:
                self._pools.pop(name)

    def _close_sharded(self, sharded: Sharded) -> None:
        if sharded.error is None:
            try:
                commit_shards(sharded.work, sharded.started, sharded.count)
            except Exception as error:  # a full disk, say: of this step, and not of those beside it
                sharded.error = error
        self._done.append(Finished(sharded.step, sharded.error, sharded.detail))


def _cores() -> int:
    """Of the cluster as it is now: an autoscaler adds and removes nodes."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


@contextmanager
def connected(address: str | None, preload: Sequence[str] = ()) -> Iterator[None]:
    """Connect this process to a cluster, or to one that is started here, until the end of the block.

    Always by a named address: a bare `ray.init()` attaches to whatever cluster runs on the machine.
    Raises ClusterError where it does not answer.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns before ray.init reads its own logging level
    if address is None or address == "local":
        with ExitStack() as last:
            with keeping_signals():
                last.enter_context(private_ray(preload))
            yield
        return
    _join(address)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    try:
        _check_reachable(address)
        with keeping_signals(), in_our_folder():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ray.exceptions.AuthenticationError as error:
        raise ClusterError(about_the_token(address, str(error))) from error
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address!r} ({error}). Start one with `ray start --head`, give its host:port, "
            "and set RAY_AUTH_MODE=token where it requires a token; or leave the address out to run on this machine."
        ) from error


def _check_reachable(address: str) -> None:
    """Open and close a connection: Ray itself waits 20 seconds for a cluster that is not there, or ends the process."""
    place = urlsplit(address if "//" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=_KNOCK_SECONDS).close()


def _error_of(ref: ray.ObjectRef) -> BaseException | None:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, BaseException) else error
    except ray.exceptions.RayError as error:  # the worker died more often than it is restarted
        return error
    return None


def _detail_of(ref: ray.ObjectRef, error: BaseException | None) -> str:
    if error is None:
        return ""
    try:
        ray.get(ref)
    except ray.exceptions.RayError as told:
        return str(told)
    return ""
