"""What the chaos tests share: drivers in processes of their own, a graph to run, what must not differ after it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from orchestration.graph import Step
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, squares, total

REPOSITORY = Path(__file__).parents[2]
SHARDS = 6


def graph(log: Path | None = None, seconds: float = 0.0) -> list[Step]:
    """Four plain steps and two sharded ones, and three that read them; every piece of work tells the log."""
    told = str(log) if log else None
    plain = [number(count, log=told) for count in (2, 3, 5, 7)]
    sharded = [squares(SHARDS, log, workers=2, seconds=seconds), squares(3, log, workers=2, seconds=seconds)]
    first, second = total(*plain, sharded[0], log=told), total(plain[0], sharded[1], factor=2.0, log=told)
    return [first, second, total(*sharded, factor=3.0, log=told)]


PIECES = 4 + SHARDS + 3 + 3  # lines of the log in an undisturbed run, without the workers' starts


def pieces(log: Path) -> list[str]:
    """What was worked on, in order, repetitions too."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line != "start"]


def drive(
    store: Path, log: Path, engine: str = "inline", seconds: float = 0.05, expiry: float = 5.0
) -> subprocess.Popen:
    """A driver of the graph in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.chaos.graph_driver",
        str(store),
        str(log),
        engine,
        str(seconds),
        str(expiry),
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(driver: subprocess.Popen, seconds: float = 120) -> str:
    """Wait for a driver that must end well; what it printed."""
    out, errors = driver.communicate(timeout=seconds)
    assert driver.returncode == 0, errors
    return out


def wait_for(log: Path, count: int, driver: subprocess.Popen, seconds: float = 120) -> None:
    """Until so many pieces were begun, or the driver has ended."""
    deadline = time.monotonic() + seconds
    while len(pieces(log)) < count and driver.poll() is None:
        assert time.monotonic() < deadline, "the driver does not get on"
        time.sleep(0.005)


def random_moment(draw: random.Random, log: Path, driver: subprocess.Popen) -> None:
    """Wait until a random piece is under way, and a random part of it is over."""
    wait_for(log, len(pieces(log)) + draw.randrange(1, 6), driver)
    time.sleep(draw.uniform(0, 0.06))


def data_files(store: Path) -> dict[str, bytes]:
    """What must not differ between a disturbed and an undisturbed run; every artifact is checked on the way."""
    for artifact in open_store(store).artifacts():
        assert list(artifact.damages(every_byte=True)) == []
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.glob("*/*/*")
        if path.suffix == ".arrow" or path.name in ("identity.json", "total.json")
    }
