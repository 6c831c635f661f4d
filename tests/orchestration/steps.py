"""Steps for tests of the orchestration: numbers in, numbers out; no model, no task."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.store.arrow import column_array, read_table, table_of

HERE = "tests.orchestration.steps"
LIGHT = Resources(cpus=0)


def number(value: int, **local: Any) -> Step:
    """A shard of `value` rows, 0 ... value - 1."""
    return Step("number", f"number {value}", 1, f"{HERE}:fill_number", {"value": value}, local=local, resources=LIGHT)


def fill_number(work: StepContext) -> None:
    _die(work, 0, "before")
    _told(work)
    work.out.write_shard(0, table_of(range(work.identity["value"]), {"x": np.arange(work.identity["value"]) * 1.0}))
    _die(work, 0, "after")


def waiting(name: str, log: Path) -> Step:
    """A step that only waits: until `log` has a line of a "number", which has to run beside it."""
    asked = Resources(cpus=0, waits=True)
    return Step("waiting", name, 1, f"{HERE}:fill_waiting", {"name": name}, local={"log": str(log)}, resources=asked)


def fill_waiting(work: StepContext) -> None:
    _told(work)
    until = time.monotonic() + 120
    while "number" not in Path(work.local["log"]).read_text().splitlines():
        assert time.monotonic() < until, "no number came"
        time.sleep(0.05)
    work.out.write("waited.json", b"true")


def total(*sources: Step, factor: float = 1.0, **local: Any) -> Step:
    """The sum of all rows of its inputs, times the factor."""
    inputs = {f"n{i}": source for i, source in enumerate(sources)}
    label = "total" if factor == 1.0 else f"total x {factor}"
    return Step("total", label, 1, f"{HERE}:fill_total", {"factor": factor}, inputs, local=local, resources=LIGHT)


def fill_total(work: StepContext) -> None:
    _told(work)
    sums = [column_array(read_table(path), "x").sum() for source in work.inputs.values() for path in source.shards()]
    work.out.write("total.json", json.dumps(sum(sums) * work.identity["factor"]).encode())


def broken(message: str, *sources: Step) -> Step:
    """A step whose function raises."""
    inputs = {f"n{i}": source for i, source in enumerate(sources)}
    return Step("broken", f"broken {message}", 1, f"{HERE}:fill_broken", {"message": message}, inputs, resources=LIGHT)


def fill_broken(work: StepContext) -> None:
    raise UsersMistake(work.identity["message"])


class UsersMistake(Exception):
    """An error as the packages raise it for a user's mistake."""

    exit_code = 2


def squares(shards: int, log: Path | None = None, workers: int | None = None, **local: Any) -> Step:
    """Sharded work: shard i holds i * i, made by workers that each tell `log` when they start and what they fill."""
    return Step(
        "squares",
        f"squares {shards}",
        1,
        f"{HERE}:Squares",
        {"shards": shards},
        local={**local, "log": str(log) if log else None},
        setup={"log": str(log) if log else None},
        resources=Resources(cpus=0, gpus=0, workers=workers),
    )


class Squares:
    """The worker of `squares`. With `kill_at` in `local` it ends or stops its process once, at a shard and moment."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        _append(setup["log"], "start")

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return int(work.identity["shards"])

    def fill(self, work: StepContext, shard: int) -> None:
        _die(work, shard, "before")
        if shard == work.local.get("fail_at"):
            raise UsersMistake(f"shard {shard} cannot be filled")
        _append(work.local["log"], f"shard {shard}")
        time.sleep(work.local.get("seconds", 0))
        if _dies_here(work, shard, "within"):  # half a file is staged, as by a writer killed while it writes
            (work.out.folder / ".tmp-0-part-00000.arrow").write_bytes(b"ARROW1 half of a sha")
            _die(work, shard, "within")
        work.out.write_shard(shard, table_of([shard], {"x": np.array([float(shard * shard)])}), {"device": "cpu"})
        _die(work, shard, "after")


def _dies_here(work: StepContext, shard: int, moment: str) -> bool:
    kill = work.local.get("kill_at")
    return bool(kill) and (kill["shard"], kill["moment"]) == (shard, moment) and not Path(kill["once"]).exists()


def _die(work: StepContext, shard: int, moment: str) -> None:
    if _dies_here(work, shard, moment):
        with contextlib.suppress(FileNotFoundError):  # a test that wants it to happen every time names no folder
            Path(work.local["kill_at"]["once"]).touch()
        os.kill(os.getpid(), signal.Signals[work.local["kill_at"].get("signal", "SIGKILL")])


def _told(work: StepContext) -> None:
    _append(work.local.get("log"), work.out.payload["step"])


def _append(log: str | None, line: str) -> None:
    if log:
        with open(log, "a") as file:
            file.write(line + "\n")
