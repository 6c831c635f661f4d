"""Processes killed at chosen points: the next run ends in the same bytes and repeats nothing committed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import in_order
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from orchestration.store.files import TEMPORARY
from tests.chaos.conftest import FULL
from tests.chaos.driver import targets
from tests.orchestration.steps import number, squares, total

REPOSITORY = Path(__file__).parents[2]
FILES_MADE = 6 + 10 + 5  # of the steps number, squares and total; held by test_the_kill_points_above_are_all_there_are


def drive(store: Path, engine: str, log: Path, *fault: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.driver", str(store), engine, str(log), *fault],
        cwd=REPOSITORY,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def data_files(store: Path) -> dict[str, bytes]:
    """What must not differ between a disturbed and an undisturbed run."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.glob("*/*/*")
        if path.suffix == ".arrow" or path.name in ("identity.json", "total.json")
    }


def filled(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert drive(folder / "store", "inline", folder / "log").wait() == 0
    return data_files(folder / "store")


def check_and_finish(store_path: Path, log: Path, undisturbed: dict[str, bytes]) -> None:
    """After a kill: nothing half-written is visible; a rerun repeats no committed shard and ends in the same bytes."""
    store = open_store(store_path)
    for artifact in store.artifacts():
        assert list(artifact.damages(every_byte=True)) == []
    steps = list(in_order(targets()))
    kept = {step.label for step in steps if store.find(step) is not None}
    sharded = store.root / squares(3).folder
    shards_kept = [i for i in range(3) if (sharded / f"part-{i:05d}.json").exists()]
    log.unlink(missing_ok=True)
    assert drive(store_path, "inline", log).wait() == 0
    repeated = filled(log)
    assert not [f"shard {i}" for i in shards_kept if f"shard {i}" in repeated]
    assert not [label for label in kept if label.split()[0] in repeated]
    assert data_files(store_path) == undisturbed
    assert not list(store_path.glob(f"*/*/{TEMPORARY}*"))


MOMENTS = ("before", "within", "after")
POINTS = [(call, moment) for call in range(1, FILES_MADE + 1) for moment in MOMENTS]


@pytest.mark.parametrize(("call", "moment"), POINTS if FULL else POINTS[::4])
def test_a_driver_killed_around_any_file_loses_nothing_committed(call, moment, tmp_path, undisturbed):
    store, log = tmp_path / "store", tmp_path / "log"
    assert drive(store, "inline", log, str(call), moment).wait() == -signal.SIGKILL
    check_and_finish(store, log, undisturbed)


def test_the_kill_points_above_are_all_there_are(tmp_path):
    assert drive(tmp_path / "store", "inline", tmp_path / "log", str(FILES_MADE + 1), "before").wait() == 0


def run_on_ray(store, *targets):
    from orchestration.ray_backend.engine import RayEngine

    quiet = lambda *_: None  # noqa: E731
    outcomes = run_plan(make_plan(targets, store), lambda: RayEngine(store, quiet), quiet)
    return {outcome.state for outcome in outcomes.values()}


def run_inline(store, *targets):
    quiet = lambda *_: None  # noqa: E731
    run_plan(make_plan(targets, store), lambda: InlineEngine(store, quiet), quiet)


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_worker_killed_around_a_shard_is_replaced_and_the_run_ends_well(moment, tmp_path, ray_cluster):
    store, log, killed = open_store(tmp_path / "store"), tmp_path / "log", tmp_path / "killed"
    target = squares(4, log, workers=1, kill_at={"shard": 2, "moment": moment, "once": str(killed)})
    assert run_on_ray(store, target) == {"ran"}
    assert killed.exists()
    assert {line for line in filled(log) if line != "start"} == {f"shard {i}" for i in range(4)}
    other = open_store(tmp_path / "other")
    run_inline(other, squares(4))
    assert data_files(other.root) == data_files(store.root)
    assert not list(store.root.glob(f"*/*/{TEMPORARY}*"))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_task_killed_around_its_work_is_run_again_and_ends_in_the_same_bytes(moment, tmp_path, ray_cluster):
    store, killed = open_store(tmp_path / "store"), tmp_path / "killed"
    kill_at = {"shard": 0, "moment": moment, "once": str(killed)}
    assert run_on_ray(store, total(number(5, kill_at=kill_at))) == {"ran"}
    assert killed.exists()
    other = open_store(tmp_path / "other")
    run_inline(other, total(number(5)))
    assert data_files(other.root) == data_files(store.root)


def test_a_driver_on_ray_killed_between_shards_goes_on_where_it_was(tmp_path, undisturbed):
    store, log = tmp_path / "store", tmp_path / "log"
    driver = drive(store, "ray", log)
    deadline = time.monotonic() + 300
    while "shard 0" not in filled(log):
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    time.sleep(3)  # its workers may finish the shard in hand: harmless, and committed if whole
    check_and_finish(store, log, undisturbed)
