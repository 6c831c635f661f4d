"""A search whose trials are batches: Ray Tune hands packs of configurations to workers that are used again.

What a pack came to is a file in the step's scratch folder before anybody hears of it, so a search whose driver, worker
or node died goes on where it was and repeats no finished configuration. Ray Tune's own restoring is not used: it saves
too seldom for work this short. A configuration is {"key", ...} and a record {"key", "ended", "validation", "curve",
...}, plain data both; what they mean is the caller's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestration.errors import WorkerError, exit_code_of
from orchestration.execution.work import callable_of
from orchestration.graph import Resources
from orchestration.ray_backend.early_stopping import EarlyStopper, Stopping
from orchestration.ray_backend.placement import hide_gpus
from orchestration.ray_backend.trial_queue import Pack, Record, SearchAlgorithm, TrialQueue, part_of
from orchestration.store import files
from orchestration.store.scratch import begin_anew

Watch = Callable[[int, Mapping[str, float]], Collection[str]]
_PACKS, _TUNE, _MISTAKE = "packs", "tune", "mistake.json"  # in the scratch folder


@dataclass(frozen=True)
class WorkerSlots:
    """Where packs are tried: how many at once, and cores and GPUs of each. None at once: in this process."""

    concurrent: int
    cpus: float
    gpus: float


def search(
    function: str,
    setup: Mapping[str, Any],
    proposals: SearchAlgorithm,
    places: WorkerSlots,
    stopping: Stopping,
    seconds: float | None,
    scratch: Path,
) -> list[Record]:
    """Try all that is proposed with "module:function"(setup, pack, watch), which returns a record for each.

    Args:
        function: tries a pack of configurations.
        setup: its first argument, the same for every pack.
        proposals: where configurations come from; hears each result.
        places: how many packs at a time, and what each reserves; `concurrent` 0 is this process.
        stopping: the rule that ends configurations early.
        seconds: no pack is begun after this time, and those under way end after their epoch; None: no limit.
        scratch: folder of the results; a search that is called again continues from it.

    A pack whose worker dies is tried again in halves. Returns the records in no order. Raises WorkerError for what a
    worker raised.
    """
    (scratch / _PACKS).mkdir(parents=True, exist_ok=True)
    (scratch / _MISTAKE).unlink(missing_ok=True)
    begin_anew(scratch)
    known = finished(scratch)
    proposals.tell(known)
    queue = TrialQueue(proposals, scratch, known, time.time() + seconds if seconds is not None else None)
    job = {"function": function, "setup": dict(setup), "scratch": str(scratch), "deadline": queue.deadline}
    curves = {record["key"]: record["curve"] for record in known}
    if not places.concurrent:
        referee = EarlyStopper(stopping, curves) if stopping.rule != "none" else None
        while (pack := queue.take()) is not None:
            queue.tell(_try(job, pack, referee.end if referee else None))
    else:
        _tune(job, queue, places, stopping, curves)
    return list(queue.records.values())


def room(concurrent: int | None, cpus: float | None, gpus: float | None) -> WorkerSlots:
    """Worker slots on the cluster this process is connected to: `concurrent`, or as many as its nodes have room for.

    `cpus` None shares a node's cores out among them; `gpus` None is one where there are any. Raises ClusterError where
    no node has room for one.
    """
    from orchestration.ray_backend.pools import alive_nodes, pool_size

    nodes = alive_nodes()
    most = max(1, int(sum(node.get("CPU", 1) for node in nodes) / (cpus or 1)))
    workers, options = pool_size(Resources(cpus, gpus, concurrent or most), nodes)
    return WorkerSlots(workers, options["num_cpus"], options["num_gpus"])


def finished(scratch: Path) -> list[Record]:
    """All that was ever finished; what was lost to lack of memory, say, may do better this time."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((scratch / _PACKS).glob("[!.]*.json"))]
    return [record for records in found for record in records if record["ended"] != "lost"]


def _try(job: Mapping[str, Any], pack: Pack, referee: Watch | None) -> list[Record]:
    """Try a pack, here, and keep what came of it."""

    def watch(epoch: int, losses: Mapping[str, float]) -> Collection[str]:
        if job["deadline"] is not None and time.time() > job["deadline"]:
            return list(losses)
        return referee(epoch, losses) if referee else ()

    records = callable_of(job["function"])(job["setup"], pack, watch)
    _keep(Path(job["scratch"]), pack, records)
    return records


def _keep(scratch: Path, pack: Pack, records: Sequence[Record]) -> None:
    files.replace_json(_file(scratch, pack), list(records))


def _file(scratch: Path, pack: Pack) -> Path:
    return scratch / _PACKS / f"{part_of(pack)}.json"


def _tune(
    job: Mapping[str, Any],
    queue: TrialQueue,
    places: WorkerSlots,
    stopping: Stopping,
    curves: Mapping[str, list[float]],
) -> None:
    """Have Ray Tune try packs until the queue has no more."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # records are our own
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    import ray
    from ray import tune

    from orchestration.ray_backend.tune_searcher import PackSearcher

    scratch = Path(job["scratch"])
    shutil.rmtree(scratch / _TUNE, ignore_errors=True)  # of an attempt that was cut off
    referee = None
    if stopping.rule != "none":
        referee = ray.remote(EarlyStopper).options(num_cpus=0).remote(stopping, dict(curves))
    trial = tune.with_parameters(_trial, job={**job, "referee": referee, "gpus": places.gpus})
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": places.cpus, **({"GPU": places.gpus} if places.gpus else {})}),
        tune_config=tune.TuneConfig(
            search_alg=PackSearcher(queue, partial(_outcome, scratch), (scratch / _MISTAKE).is_file),
            num_samples=-1,
            max_concurrent_trials=places.concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=_TUNE, storage_path=str(scratch), verbose=0),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # a banner, with the largest integer as the number of trials
        tuner.fit()
    if (scratch / _MISTAKE).is_file():
        raise WorkerError(**json.loads((scratch / _MISTAKE).read_text(encoding="utf-8")))


def _outcome(scratch: Path, pack: Pack) -> list[Record] | None:
    """What a pack came to, None where its worker died."""
    path = _file(scratch, pack)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _trial(config: dict[str, Any], job: dict[str, Any]) -> None:
    """What a worker of Ray Tune runs: one pack."""
    import ray
    from ray import tune

    referee, pack = job["referee"], config["pack"]
    if not job["gpus"]:
        hide_gpus()

    def end(epoch: int, losses: Mapping[str, float]) -> Collection[str]:
        return ray.get(referee.end.remote(epoch, dict(losses)))

    try:
        _try(job, pack, end if referee is not None else None)
    except Exception as error:
        code = exit_code_of(error)
        mistake = {"message": traceback.format_exc() if code is None else str(error), "exit_code": code or 1}
        files.replace_json(Path(job["scratch"]) / _MISTAKE, mistake)
        raise
    tune.report({"configurations": len(pack)})
