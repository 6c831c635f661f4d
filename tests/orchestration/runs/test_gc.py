"""Making room: what goes is what nobody needs; what is damaged goes and nothing else."""

import os
import time
from contextlib import closing

import numpy as np
import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.gc import bytes_of, damages, garbage, labels, remove, remove_damaged
from orchestration.runs.lookup import find_run
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run, runs
from orchestration.store.arrow import table_of
from orchestration.store.artifacts import open_store
from orchestration.store.files import TEMPORARY
from orchestration.store.leases import Leases
from orchestration.store.scratch import StepProgress, scratch_folder, tell
from tests.orchestration.steps import number, squares, total


def run(store, *targets):
    record = open_run(store, targets, "workflow: test\n")
    run_plan(make_plan(targets, store), lambda: InlineEngine(store, lambda *_: None), lambda *_: None)
    return record


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def places(found):
    return {(one.kind, one.place) for one in found}


def age(path, seconds):
    for file in [*path.rglob("*"), path]:
        os.utime(file, (time.time() - seconds,) * 2)


def test_what_recorded_runs_reach_stays_and_the_rest_goes(store):
    run(store, total(number(2)))
    lonely = run(store, number(3))
    lonely.folder.rename(store.root.parent / "away")
    found = garbage(store, None, 0)
    assert places(found) == {("artifact", number(3).folder)}
    assert found[0].bytes == bytes_of(store.root / number(3).folder) > 0
    assert store.find(number(3)), "to look is not to remove"
    assert list(remove(store, found)) == found
    assert store.find(number(3)) is None
    assert store.find(total(number(2))).json("total.json") == 1
    assert not list(store.root.glob(f"{TEMPORARY}*"))


def test_what_else_lies_in_the_folder_of_a_store_is_the_users(store):
    run(store, total(number(2)))
    mine = {
        "docs/images/logo.png",
        "encode/backup/COMMITTED",
        "scratch/notes/today.txt",
        "runs/first/graph.json",
        "docs/images/.tmp-draft",
        ".tmp-mine",
        "docs/0123456789abcdef",
    }
    for name in mine:
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    age(store.root, 7200)
    assert {artifact.folder for artifact in store.artifacts()} == {
        store.root / step.folder for step in (number(2), total(number(2)))
    }
    assert damages(store) == {}
    (record,) = runs(store)
    assert find_run(record.run_id, store) == record
    assert garbage(store, None, 0) == []
    assert places(list(remove(store, garbage(store, [], 0)))) == {
        ("artifact", number(2).folder),
        ("artifact", total(number(2)).folder),
    }
    assert {name for name in mine if (store.root / name).read_text() == "mine"} == mine


def test_with_named_runs_only_what_they_reach_stays(store):
    kept = run(store, total(number(2)))
    run(store, total(number(2), number(3)))
    list(remove(store, garbage(store, [find_run(kept.run_id, store)], 0)))
    there = {store.find(step) is not None: step.label for step in (number(2), total(number(2)))}
    assert set(there) == {True}
    assert store.find(number(3)) is None
    assert store.find(total(number(2), number(3))) is None
    run(store, total(number(2), number(3)))
    assert store.find(total(number(2), number(3))).json("total.json") == 1 + 3


def test_what_is_young_stays(store):
    run(store, number(2))
    run(store, number(3))
    age(store.root / number(2).folder, 3 * 86400)
    assert places(garbage(store, [], 86400)) == {("artifact", number(2).folder)}
    assert garbage(store, [], 4 * 86400) == []


def test_what_is_being_made_stays_and_so_does_all_its_run_reaches(store):
    run(store, total(number(2)))
    run(store, number(3))
    with closing(Leases(store.root)) as leases:
        leases.take(total(number(2)).folder)
        assert places(garbage(store, [], 0)) == {("artifact", number(3).folder)}


def test_what_a_driver_began_to_make_after_the_look_stays(store):
    run(store, number(2))
    found = garbage(store, [], 0)
    with closing(Leases(store.root)) as leases:
        leases.take(number(2).folder)
        assert list(remove(store, found)) == []
    assert store.find(number(2))


def test_an_unfinished_step_of_a_kept_run_keeps_its_shards(store):
    open_run(store, [squares(2)], "workflow: test\n")
    for step in (squares(2), squares(3)):
        writer = store.writer(step)
        writer.begin()
        writer.write_shard(0, table_of([0], {"x": np.zeros(1)}))
    assert places(garbage(store, None, 0)) == {("unfinished", squares(3).folder)}
    list(remove(store, garbage(store, None, 0)))
    assert store.writer(squares(2)).shard_committed(0)
    assert not (store.root / squares(3).folder).exists()


def test_leftovers_go_scratch_of_what_is_done_or_unreached_and_old_temporary_files(store):
    run(store, number(2))
    open_run(store, [number(4)], "workflow: test\n")
    for step in (number(2), number(3), number(4)):
        tell(scratch_folder(store.root, step.folder), StepProgress(1, 2, "rows"))
    old, new = (store.root / number(2).folder / f"{TEMPORARY}{age}-part-00000.arrow" for age in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    found = garbage(store, None, 0)
    assert places(found) == {
        ("scratch", f"scratch/{number(2).folder}"),
        ("scratch", f"scratch/{number(3).folder}"),
        ("temporary", str(old.relative_to(store.root))),
    }
    assert len(list(remove(store, found))) == 3
    assert not old.exists()
    assert new.exists()
    assert scratch_folder(store.root, number(4).folder).is_dir()


def test_a_removal_cut_off_after_any_deletion_leaves_no_part_that_counts(store, monkeypatch):
    """The marker goes first, then the name: whatever else is left, the step is recomputed from nothing."""
    run(store, squares(3))

    def cut_off(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestration.store.files.shutil.rmtree", cut_off)
    with pytest.raises(KeyboardInterrupt):
        list(remove(store, garbage(store, [], 0)))
    monkeypatch.undo()
    assert store.find(squares(3)) is None
    run(store, squares(3))
    assert list(store.find(squares(3)).damages(every_byte=True)) == []
    (left,) = store.root.glob(f"{TEMPORARY}*")
    age(left, 7200)
    list(remove(store, garbage(store, None, 0)))
    assert not left.exists()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_damage_is_removed_and_the_next_run_makes_that_alone(store):
    run(store, total(number(2), squares(3)))
    flip(store.root / squares(3).folder / "part-00001.arrow")
    before = store.find(number(2)).folder.stat().st_ino
    found = damages(store)
    assert list(found) == [squares(3).folder]
    assert labels(store)[squares(3).folder] == "squares 3"
    assert list(remove_damaged(store, found)) == [squares(3).folder]
    assert damages(store) == {}
    plan = make_plan([total(number(2), squares(3))], store)
    assert [entry.step.label for entry in plan if entry.state == "run"] == ["squares 3"]
    run(store, total(number(2), squares(3)))
    assert store.find(number(2)).folder.stat().st_ino == before


def test_a_damaged_shard_of_an_unfinished_step_is_found_and_removed(store):
    writer = store.writer(squares(2))
    writer.begin()
    for shard in (0, 1):
        writer.write_shard(shard, table_of([shard], {"x": np.zeros(1)}))
    flip(writer.folder / "part-00001.arrow")
    (writer.folder / "part-00000.json").write_text("{")
    assert [len(found) for found in damages(store).values()] == [2]
    list(remove_damaged(store, damages(store)))
    run(store, squares(2))
    assert list(store.find(squares(2)).damages(every_byte=True)) == []


def test_what_is_being_made_is_not_repaired_away(store):
    run(store, number(2))
    flip(store.root / number(2).folder / "part-00000.arrow")
    with closing(Leases(store.root)) as leases:
        leases.take(number(2).folder)
        assert list(remove_damaged(store, damages(store))) == []
    assert (store.root / number(2).folder / "COMMITTED").is_file()
