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
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from orchestration.execution.work import callable_of
from orchestration.graph import Resources, key_of
from orchestration.ray_backend.early_stopping import Referee, Stopping
from orchestration.ray_backend.placement import hide_gpus
from orchestration.store import files
from orchestration.store.scratch import Told, begin_anew, tell, withdraw

Pack = list[dict[str, Any]]
Record = dict[str, Any]
Watch = Callable[[int, Mapping[str, float]], Collection[str]]
_PACKS, _TUNE, _MISTAKE, _SPENT = "packs", "tune", "mistake.json", "spent.json"  # in the scratch folder
_DEATHS = 2  # of a worker with one and the same single configuration, before that is given up


class SearchMistake(Exception):
    """What a worker raised, in its own words."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)  # both: it travels between processes
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.args[0]


class Proposals(Protocol):
    """Where configurations come from."""

    total: int  # how many there will be

    def take(self) -> Pack | None:
        """A pack to try; None: there is none now, though results may bring more, or none ever again."""
        ...

    def tell(self, records: Sequence[Record]) -> None:
        """Hear what became of configurations, of this or of an earlier attempt; those are never proposed again."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether nothing will ever be proposed again, though some may still be on their way."""
        ...


@dataclass(frozen=True)
class Places:
    """Where packs are tried: how many at once, and cores and GPUs of each. None at once: in this process."""

    concurrent: int
    cpus: float
    gpus: float


def search(
    function: str,
    setup: Mapping[str, Any],
    proposals: Proposals,
    places: Places,
    stopping: Stopping,
    seconds: float | None,
    scratch: Path,
) -> list[Record]:
    """Try all that is proposed with "module:function"(setup, pack, watch), which returns a record for each.

    With a limit of `seconds`, no pack is begun after it and those under way end after their epoch. A pack whose worker
    dies is tried again in halves. Returns the records in no order. Raises SearchMistake for what a worker raised.
    """
    (scratch / _PACKS).mkdir(parents=True, exist_ok=True)
    (scratch / _MISTAKE).unlink(missing_ok=True)
    begin_anew(scratch)
    known = finished(scratch)
    proposals.tell(known)
    board = Board(proposals, scratch, known, time.time() + seconds if seconds is not None else None)
    job = {"function": function, "setup": dict(setup), "scratch": str(scratch), "deadline": board.deadline}
    curves = {record["key"]: record["curve"] for record in known}
    if not places.concurrent:
        referee = Referee(stopping, curves) if stopping.rule != "none" else None
        while (pack := board.take()) is not None:
            board.tell(_try(job, pack, referee.end if referee else None))
    else:
        _tune(job, board, places, stopping, curves)
    return list(board.records.values())


def room(concurrent: int | None, cpus: float | None, gpus: float | None) -> Places:
    """Places on the cluster this process is connected to: `concurrent`, or as many as its nodes have room for.

    `cpus` None shares a node's cores out among them; `gpus` None is one where there are any. Raises ClusterError where
    no node has room for one.
    """
    from orchestration.ray_backend.pools import alive_nodes, pool_size

    nodes = alive_nodes()
    most = max(1, int(sum(node.get("CPU", 1) for node in nodes) / (cpus or 1)))
    workers, options = pool_size(Resources(cpus, gpus, concurrent or most), nodes)
    return Places(workers, options["num_cpus"], options["num_gpus"])


def finished(scratch: Path) -> list[Record]:
    """All that was ever finished; what was lost for want of memory, say, may do better this time."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((scratch / _PACKS).glob("[!.]*.json"))]
    return [record for records in found for record in records if record["ended"] != "lost"]


def seconds_spent(scratch: Path) -> float:
    """What the attempts so far took, each until its last result."""
    path = scratch / _SPENT
    return float(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0.0


class Board:
    """What is to be tried and what came of it, and how far that is."""

    def __init__(self, proposals: Proposals, scratch: Path, known: Sequence[Record], deadline: float | None) -> None:
        self._proposals, self._scratch, self.deadline = proposals, scratch, deadline
        self.records = {record["key"]: record for record in known}
        self._started, self._spent = time.monotonic(), seconds_spent(scratch)
        self._again: list[Pack] = []
        self._deaths: Counter[str] = Counter()
        self._say()

    def take(self) -> Pack | None:
        """The next pack, None where there is none now."""
        if self._late:
            return None
        return self._again.pop() if self._again else self._proposals.take()

    @property
    def exhausted(self) -> bool:
        """Whether there will be none, unless one under way dies."""
        return self._late or (not self._again and self._proposals.exhausted)

    @property
    def _late(self) -> bool:
        return self.deadline is not None and time.time() > self.deadline

    def tell(self, records: Sequence[Record]) -> None:
        """Hear what became of a pack."""
        self.records |= {record["key"]: record for record in records}
        self._proposals.tell(records)
        files.replace_json(self._scratch / _SPENT, round(self._spent + time.monotonic() - self._started, 3))
        self._say()

    def died(self, pack: Pack) -> None:
        """A worker died with this pack, for want of memory perhaps: half as many at a time."""
        withdraw(self._scratch, part_of(pack))
        name = pack[0]["key"]
        self._deaths[name] += len(pack) == 1
        if self._deaths[name] < _DEATHS:
            half = len(pack) // 2
            self._again += [part for part in (pack[:half], pack[half:]) if part]
            return
        lost: Record = {"ended": "lost", "validation": None, "loss": None, "curve": []}
        self.tell([{**pack[0], **lost, "error": f"its worker died {_DEATHS} times"}])

    def _say(self) -> None:
        scores = [record["validation"] for record in self.records.values() if record["validation"] is not None]
        notes = [f"best {max(scores):.3f}"] if scores else []
        if self.deadline is not None:
            notes.append(f"ends in {max(0.0, self.deadline - time.time()):.0f} s at the latest")
        told = Told(len(self.records), self._proposals.total, "trials", ", ".join(notes))
        tell(self._scratch, told, at_once=True)


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


def part_of(pack: Sequence[Mapping[str, Any]]) -> str:
    """The name of a pack, by which its worker says how far it is."""
    return key_of({"keys": [one["key"] for one in pack]})[:16]


def _tune(
    job: Mapping[str, Any], board: Board, places: Places, stopping: Stopping, curves: Mapping[str, list[float]]
) -> None:
    """Have Ray Tune try packs until the board has no more."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # records are our own
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    import ray
    from ray import tune

    from orchestration.ray_backend.tune_searcher import PackSearcher

    scratch = Path(job["scratch"])
    shutil.rmtree(scratch / _TUNE, ignore_errors=True)  # of an attempt that was cut off
    referee = None
    if stopping.rule != "none":
        referee = ray.remote(Referee).options(num_cpus=0).remote(stopping, dict(curves))
    trial = tune.with_parameters(_trial, job={**job, "referee": referee, "gpus": places.gpus})
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": places.cpus, **({"GPU": places.gpus} if places.gpus else {})}),
        tune_config=tune.TuneConfig(
            search_alg=PackSearcher(board, partial(_outcome, scratch), (scratch / _MISTAKE).is_file),
            num_samples=-1,
            max_concurrent_trials=places.concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name=_TUNE, storage_path=str(scratch), verbose=0),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # a banner, with the largest integer as the number of trials
        tuner.fit()
    if (scratch / _MISTAKE).is_file():
        raise SearchMistake(**json.loads((scratch / _MISTAKE).read_text(encoding="utf-8")))


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
        told = str(error) if hasattr(error, "exit_code") else traceback.format_exc()
        mistake = {"message": told, "exit_code": getattr(error, "exit_code", 1)}
        files.replace_json(Path(job["scratch"]) / _MISTAKE, mistake)
        raise
    tune.report({"configurations": len(pack)})
