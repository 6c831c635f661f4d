"""Data-parallel training on Ray Train: workers that share one process group, and go on from the last checkpoint.

Checkpoints are folders of ours in the step's scratch folder, which is named by the step's key: what lies there is
always of the same work. Ray Train's own would be copied, and known only once its controller had looked; a disk that ran
full meanwhile could leave its list of them cut, and nothing to go on from.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestration.errors import WorkerError, exit_code_of
from orchestration.execution.work import callable_of
from orchestration.graph import Resources
from orchestration.ray_backend.placement import in_a_line, lacks_memory
from orchestration.store.files import TEMPORARY

_FAILURES = 3  # times that workers may die before the step fails
_LOOKS = "0.2"  # seconds between Ray Train's looks at its workers: the end of a short fit is seen at once
_RUN, _CHECKPOINT = "ray", "checkpoint-"  # in the scratch folder
_KEPT = 2  # checkpoints: one may be read while the next is written
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class WorkerContext:
    """A worker's place among the workers of a training.

    Attributes:
        rank, world: its number, of how many.
        checkpoint: folder of the last checkpoint that was kept, or None at the start; the same for all.
        device: the one Ray Train gave it, "cuda:0", say; None where it runs alone and may choose.
        scratch: the step's scratch folder.
    """

    rank: int
    world: int
    checkpoint: Path | None
    device: str | None
    scratch: Path

    def keep(self, fill: Callable[[Path], None]) -> None:
        """Keep a checkpoint of a step that all workers have reached: rank 0 fills a folder with it.

        It gets its name when it is whole, and all before the last two go then: at every moment there is one to go on
        from, though a worker of a driver that was taken over may still write as well.
        """
        if self.rank:
            return
        begun = self.scratch / f"{TEMPORARY}{_CHECKPOINT}{uuid4().hex}"
        try:
            begun.mkdir()
            fill(begun)
            _name_next(begun, self.scratch)
        finally:
            shutil.rmtree(begun, ignore_errors=True)
        for folder in _checkpoints(self.scratch)[:-_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def _name_next(begun: Path, scratch: Path) -> None:
    """Make a whole folder the last checkpoint."""
    while True:
        last = _last_checkpoint(scratch)
        number = int(last.name.removeprefix(_CHECKPOINT)) + 1 if last is not None else 1
        try:
            os.replace(begun, scratch / f"{_CHECKPOINT}{number:06d}")
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another took that number
                raise


def _checkpoints(scratch: Path) -> list[Path]:
    """Whole ones, the last one last; of those before the last two a part may be gone."""
    return sorted(scratch.glob(f"{_CHECKPOINT}*"))


def _last_checkpoint(scratch: Path) -> Path | None:
    return next(reversed(_checkpoints(scratch)), None)


@contextmanager
def _telling_of_want(scratch: Path, fewer_rows: str) -> Iterator[None]:
    """Of disk, or of memory: what would be so again is told once."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise WorkerError(
                f"{error.filename or scratch}: cannot be written ({error.strerror}). The last checkpoint is kept: make "
                "room, then run again."
            ) from error
        if lacks_memory(error) and exit_code_of(error) is None:
            raise WorkerError(
                f"a worker of the training ran out of memory ({in_a_line(error)}). Give it fewer rows a step"
                f"{fewer_rows and f' ({fewer_rows})'}, more workers, or a smaller model.",
                exit_code=1,
            ) from error
        raise


def seats(workers: int, cpus: float | None, gpus: float | None) -> tuple[int, float, float]:
    """`workers`, and cores and GPUs of each, on the cluster this process is connected to.

    `cpus` None shares a node's cores out among them, beside a GPU four at most; `gpus` None is one where there are any.
    Raises ClusterError where the cluster has no room for all of them at once.
    """
    from orchestration.ray_backend.pools import alive_nodes, group_size

    options = group_size(Resources(cpus, gpus, workers), alive_nodes())
    return workers, options["num_cpus"], options["num_gpus"]


def run_workers(
    function: str,
    config: Mapping[str, Any],
    scratch: Path,
    workers: int,
    cpus: float,
    gpus: float,
    fewer_rows: str = "",
) -> Path:
    """Run "module:function" with (seat, config) on every worker; the folder of the last checkpoint.

    Args:
        config: plain data for the function.
        scratch: a folder that all workers see, for checkpoints.
        workers: how many; with none the function runs in this process, without Ray.
        cpus, gpus: that each reserves.
        fewer_rows: the setting by which a step takes fewer rows, for the message where memory runs out.

    A worker that dies is started again, with all others, from the last checkpoint; so is a training whose driver died
    when it is begun again. Raises WorkerError for a disk that cannot be written to, for memory that runs out, for
    workers that cannot start as one team, and for what a worker of Ray's raised on purpose, which ends all of them.
    """
    with _telling_of_want(scratch, fewer_rows):
        scratch.mkdir(parents=True, exist_ok=True)
        for begun in scratch.glob(f"{TEMPORARY}{_CHECKPOINT}*"):  # of workers that were killed
            shutil.rmtree(begun, ignore_errors=True)
        if workers:
            job = {"function": function, "config": dict(config), "scratch": str(scratch), "fewer_rows": fewer_rows}
            _run_on_ray(job, workers, cpus, gpus)
        else:
            callable_of(function)(WorkerContext(0, 1, _last_checkpoint(scratch), None, scratch), config)
    last = _last_checkpoint(scratch)
    assert last is not None, "a training that ends well has kept its last step"
    return last


def _run_on_ray(job: dict[str, Any], workers: int, cpus: float, gpus: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own deprecations at import
        from ray.train import RunConfig, ScalingConfig
        from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

        from orchestration.ray_backend.process_group import ProcessGroup
        from orchestration.ray_backend.trainer import Trainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _LOOKS)
    each = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    for failures_left in reversed(range(_FAILURES + 1)):  # Ray Train's own count would repeat mistakes as well
        trainer = Trainer(
            _train_worker,
            train_loop_config=job,
            torch_config=ProcessGroup(),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=each),
            run_config=RunConfig(name=_RUN, storage_path=job["scratch"]),
        )
        try:
            trainer.fit()
            return
        except WorkerGroupError as error:
            for failure in error.worker_failures.values():
                if isinstance(failure, WorkerError):
                    raise failure from error
            if not failures_left:
                raise
        except ControllerError as error:
            raise WorkerError(
                "the workers of the training could not start as one team "
                f"({in_a_line(error.controller_failure)}). Look whether their nodes reach each other by network, and "
                "whether torch.cuda.is_available() on each node that gives a GPU.",
                exit_code=1,
            ) from error


def _train_worker(job: dict[str, Any]) -> None:
    """What every worker of Ray Train runs. A mistake travels to the driver by Ray: the disk may be what is full."""
    from ray import train
    from ray.train.collective import broadcast_from_rank_zero
    from ray.train.torch import get_device

    context, scratch = train.get_context(), Path(job["scratch"])
    last = _last_checkpoint(scratch)
    known = broadcast_from_rank_zero(str(last) if last is not None else None)  # nodes may see a folder at other times
    checkpoint = Path(known) if known is not None else None
    seat = WorkerContext(context.get_world_rank(), context.get_world_size(), checkpoint, str(get_device()), scratch)
    try:
        with _telling_of_want(scratch, job["fewer_rows"]):
            callable_of(job["function"])(seat, job["config"])
    except Exception as error:
        if (code := exit_code_of(error)) is not None:  # its own words, which Ray would bury in a traceback
            raise WorkerError(str(error), code) from error
        raise
