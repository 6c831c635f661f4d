"""Data-parallel training on Ray Train: workers that share one process group, and go on from the last checkpoint.

A run's folder lies in its step's scratch folder, which is named by the step's key: Ray Train resumes whatever it finds
under a name, and here that is always the same work.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestration import files
from orchestration.graph import Resources
from orchestration.work import callable_of

_FAILURES = 3  # workers that die before the step fails
_LOOKS = "0.2"  # seconds between Ray Train's looks for a checkpoint: a worker waits for one at every `Seat.keep`
_RUN, _ALONE, _MISTAKE = "training", "checkpoint", "mistake.json"  # in the scratch folder


class TrainingMistake(Exception):
    """What a worker raised on purpose, in its own words."""

    exit_code = 2


@dataclass(frozen=True)
class Seat:
    """A worker's place among the workers of a training.

    Attributes:
        rank, world: its number, of how many.
        checkpoint: folder of the last checkpoint that was kept, or None at the start.
        device: the one Ray Train gave it, "cuda:0", say; None where it runs alone and may choose.
        scratch: the step's scratch folder.
        alone: whether it runs in the caller's process, without Ray.
    """

    rank: int
    world: int
    checkpoint: Path | None
    device: str | None
    scratch: Path
    alone: bool

    def keep(self, fill: Callable[[Path], None], metrics: Mapping[str, float]) -> None:
        """Keep a checkpoint of a step that all workers have reached: rank 0 fills a folder with it, all others wait."""
        with TemporaryDirectory(dir=self.scratch) as place:
            folder = Path(place) / _ALONE
            folder.mkdir()
            if self.rank == 0:
                fill(folder)
            if self.alone:
                shutil.rmtree(self.scratch / _ALONE, ignore_errors=True)
                os.replace(folder, self.scratch / _ALONE)
                return
            from ray import train

            train.report(dict(metrics), checkpoint=train.Checkpoint.from_directory(folder) if self.rank == 0 else None)


def seats(workers: int, cpus: float | None, gpus: float | None) -> tuple[int, float, float]:
    """`workers`, and cores and GPUs of each, on the cluster this process is connected to.

    `cpus` None shares a node's cores out among them; `gpus` None is one where there are any. Raises ClusterError where
    the cluster has no room for all of them at once.
    """
    from orchestration.pools import alive_nodes, group_size

    options = group_size(Resources(cpus, gpus, workers), alive_nodes())
    return workers, options["num_cpus"], options["num_gpus"]


def run_workers(
    function: str, config: Mapping[str, Any], scratch: Path, workers: int, cpus: float, gpus: float
) -> Path:
    """Run "module:function" with (seat, config) on every worker; the folder of the last checkpoint.

    A worker that dies is started again, with all others, from the last checkpoint; so is a training whose driver died
    when it is begun again. With no `workers` it runs in this process, without Ray. Raises TrainingMistake for what a
    worker raised on purpose.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / _MISTAKE).unlink(missing_ok=True)
    if not workers:
        known = scratch / _ALONE
        callable_of(function)(Seat(0, 1, known if known.is_dir() else None, None, scratch, True), config)
        return known
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own deprecations at import
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import WorkerGroupError

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", _LOOKS)  # 2 s of its own, twice a small model's epoch
    each = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
    trainer = TorchTrainer(
        _sit_down,
        train_loop_config={"function": function, "config": dict(config), "scratch": str(scratch)},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=each),
        run_config=RunConfig(
            name=_RUN,
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        last = trainer.fit().checkpoint
        assert last is not None, "a training that ends well has kept its last step"
        return Path(last.path)
    except WorkerGroupError as error:
        if (scratch / _MISTAKE).is_file():
            raise TrainingMistake(json.loads((scratch / _MISTAKE).read_text(encoding="utf-8"))) from error
        raise


def _sit_down(loop: dict[str, Any]) -> None:
    """What every worker of Ray Train runs."""
    from ray import train
    from ray.train.torch import get_device

    context, last, scratch = train.get_context(), train.get_checkpoint(), Path(loop["scratch"])
    checkpoint = Path(last.path) if last is not None else None
    seat = Seat(context.get_world_rank(), context.get_world_size(), checkpoint, str(get_device()), scratch, False)
    try:
        callable_of(loop["function"])(seat, loop["config"])
    except Exception as error:
        if hasattr(error, "exit_code"):  # its own words, which Ray would bury in a traceback
            files.replace_json(scratch / _MISTAKE, str(error))
        raise
