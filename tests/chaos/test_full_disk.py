"""A disk that is really full within a shard: a small file system of its own, where this process may mount one."""

import subprocess

import numpy as np
import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import Step
from orchestration.runs.plan import make_plan
from orchestration.store.arrow import table_of
from orchestration.store.artifacts import open_store
from orchestration.store.files import TEMPORARY

ROWS = 100_000  # of a shard, 8 bytes and more each
SHARDS = 6


class Wide:
    """Shards of 1.6 MB."""

    def __init__(self, setup):
        pass

    @staticmethod
    def shard_count(work):
        return SHARDS

    def fill(self, work, shard):
        work.out.write_shard(shard, table_of(range(ROWS), {"x": np.full(ROWS, float(shard))}))


def wide() -> Step:
    return Step("wide", "wide", 1, f"{__name__}:Wide", setup={})


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "chaos", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here, for that needs root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def run(store):
    plan = make_plan([wide()], store)
    (outcome,) = run_plan(plan, lambda: InlineEngine(store, lambda *_: None), lambda *_: None).values()
    return outcome


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(small_disk, tmp_path, chronicle):
    store = open_store(small_disk / "store")
    outcome = run(store)
    assert (outcome.state, outcome.exit_code) == ("failed", 2)
    assert "No space left on device" in outcome.error
    assert "make room and run again" in outcome.error
    assert store.artifacts() == []
    folder = store.root / wide().folder
    kept = {path.name: path.stat().st_ino for path in folder.glob("part-*.arrow")}
    assert 0 < len(kept) < SHARDS
    assert all(store.writer(wide()).shard_committed(shard) for shard in range(len(kept)))
    assert not list(store.root.rglob(f"{TEMPORARY}*"))
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert run(store).state == "ran"
    assert {path.name: path.stat().st_ino for path in folder.glob("part-*.arrow")}.items() >= kept.items()
    other = open_store(tmp_path / "other")
    run(other)
    for path in (other.root / wide().folder).glob("*.arrow"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    chronicle("disk full within a shard", 1, 0)
