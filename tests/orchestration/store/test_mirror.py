"""A store in a bucket: whole, once and the same from every machine; what lies on one machine never decides."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from orchestration.errors import DamagedArtifact, StoreError
from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.archive import export_run, import_run
from orchestration.runs.gc import damages, garbage, remove, remove_damaged
from orchestration.runs.lookup import find_artifact, find_run
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run, runs
from orchestration.store import artifacts, mirror
from orchestration.store.arrow import column_array, read_table, table_of
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, squares, total
from tests.s3_server import refusal

STEP = squares(3)
TARGET = total(number(2), STEP)
SHARD = f"{STEP.folder}/part-00001.arrow"


def run(opened, *targets):
    record = open_run(opened, targets, "workflow: test\n")
    outcomes = run_plan(make_plan(targets, opened), lambda: InlineEngine(opened, lambda *_: None), record.event)
    record.write("results.json", [])
    record.push()
    return record, Counter(outcome.state for outcome in outcomes.values())


def fill_shards(opened, *shards, value=1.0):
    writer = opened.writer(STEP)
    writer.begin()
    for shard in shards:
        if not writer.shard_committed(shard):
            writer.write_shard(shard, table_of([shard], {"x": np.full(1, value)}))
    return writer


def values(opened):
    return [column_array(read_table(path), "x")[0] for path in opened.find(STEP).shards()]


def copies(opened):
    """What lies here of the artifacts in the bucket."""
    return {str(path.relative_to(opened.root)) for path in opened.root.glob("*/*/*") if path.is_file()}


def forget():
    """What this process has verified: another would verify anew."""
    artifacts._verified.clear()
    mirror._committed.clear()


def test_the_bucket_holds_the_layout_of_a_folder_and_every_byte_of_it(machine, server, bucket, tmp_path):
    run(machine(), TARGET)
    for key, data in server.objects(bucket).items():
        path = tmp_path / "folder" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    folder = open_store(tmp_path / "folder" / "store")
    assert {entry.state for entry in make_plan([TARGET], folder)} == {"cached"}
    assert damages(folder) == {}
    assert [record.run_id for record in runs(folder)] == [record.run_id for record in runs(machine())]


def test_another_machine_finds_all_of_it_and_fetches_what_it_reads(machine):
    record, counts = run(machine("one"), TARGET)
    assert counts == {"ran": 3}
    other = machine("two")
    assert run(other, TARGET) == (find_run(record.run_id, other), {"cached": 3})
    assert not [name for name in copies(other) if name.endswith(".arrow")], "nothing has read them"
    assert values(other) == [0.0, 1.0, 4.0]
    assert {f"{STEP.folder}/part-0000{shard}.arrow" for shard in range(3)} <= copies(other)
    assert find_artifact(STEP.key[:8], machine("three")).rows == 3


def test_a_plan_of_what_is_cached_costs_a_listing_for_each_kind_of_step(machine, server):
    steps = [total(*(number(value) for value in range(1, 6)), factor=float(factor)) for factor in range(1, 6)]
    run(machine(), *steps)
    opened = machine()
    server.asked.clear()
    assert {entry.state for entry in make_plan(steps, opened)} == {"cached"}
    assert [method for method, _ in server.asked] == ["GET"] * 2


def test_a_change_is_explained_by_what_other_machines_made(machine):
    run(machine("one"), number(2))
    (entry,) = make_plan([number(3)], machine("two"))
    assert (entry.state, entry.why) == ("run", "value 2 -> 3")


def test_shards_that_another_machine_committed_are_not_made_again(machine):
    fill_shards(machine("one"), 0, 1, value=7.0)
    two = machine("two")
    writer = fill_shards(two, 0, 1, 2, value=9.0)
    assert not {f"{STEP.folder}/part-0000{shard}.arrow" for shard in (0, 1)} & copies(two)
    writer.commit({}, 3)
    assert values(two) == values(machine("three")) == [7.0, 7.0, 9.0]


def test_a_shard_without_its_sidecar_does_not_count(machine, server, bucket):
    fill_shards(machine("one"), 0, 1)
    server.client.delete_object(Bucket=bucket, Key=f"store/{STEP.folder}/part-00001.json")
    writer = fill_shards(machine("one"))
    assert [writer.shard_committed(shard) for shard in range(3)] == [True, False, False]


def test_workers_on_other_nodes_need_nothing_but_the_work(machine, tmp_path):
    """The folder of copies has the same path on every node: here, it is emptied between driver and workers."""
    opened = machine()
    writer = opened.writer(STEP)
    writer.begin()
    for shard in range(3):
        shutil.rmtree(opened.root)
        pickle.loads(pickle.dumps(writer)).write_shard(shard, table_of([shard], {"x": np.full(1, shard * 1.0)}))
    shutil.rmtree(opened.root)
    writer.commit({}, 3)
    assert values(opened) == [0.0, 1.0, 2.0]
    shutil.rmtree(opened.root)
    forget()
    found = opened.find(STEP)
    assert found.rows == 3
    shutil.rmtree(opened.root)
    assert len(pickle.loads(pickle.dumps(found)).shards()) == 3


def test_machines_that_write_at_the_same_time_leave_one_whole_artifact(machine):
    opened = [machine(name) for name in ("one", "two", "three", "four")]
    errors = []

    def fill(opened, value):
        try:
            fill_shards(opened, 0, 1, 2, value=value).commit({"by": value}, 3)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fill, args=(one, float(value))) for value, one in enumerate(opened)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert damages(opened[0]) == {}
    found = [(values(one), one.find(STEP).json("provenance.json"), one.find(STEP).manifest) for one in opened]
    assert all(one == found[0] for one in found)
    for name in ("five", "one"):
        assert values(machine(name)) == found[0][0]


def test_a_committed_artifact_never_changes(machine, server, bucket):
    fill_shards(machine("one"), 0, 1, 2, value=1.0).commit({}, 3)
    before = server.objects(bucket)
    fill_shards(machine("two"), 0, 1, 2, value=2.0).commit({}, 3)
    writer = machine("three").writer(STEP)
    writer.write_shard(0, table_of([0], {"x": np.full(1, 3.0)}))  # of a worker that comes too late
    writer.write("more.json", b"{}")
    assert {key: data for key, data in server.objects(bucket).items() if key in before} == before
    assert values(machine("three")) == [1.0, 1.0, 1.0]


def test_what_the_bucket_holds_no_more_is_made_anew(machine):
    run(machine("one"), TARGET)
    run(machine("two"), TARGET)
    machine("one").mirror.remove(STEP.folder)
    two = machine("two")
    assert two.find(STEP) is None
    assert not [name for name in copies(two) if name.startswith(STEP.folder)]
    assert run(two, TARGET)[1] == {"ran": 1, "cached": 2}


def test_an_artifact_that_was_made_anew_elsewhere_is_read_anew(machine):
    fill_shards(machine("one"), 0, 1, 2, value=1.0).commit({"seconds": 1}, 3)
    assert values(machine("two")) == [1.0, 1.0, 1.0]
    machine("one").mirror.remove(STEP.folder)
    fill_shards(machine("one"), 0, 1, 2, value=2.0).commit({"seconds": 2}, 3)
    forget()
    assert values(machine("two")) == [2.0, 2.0, 2.0]
    assert {entry.state for entry in make_plan([STEP], machine("two"))} == {"cached"}


def test_leftovers_here_of_what_the_bucket_never_got_do_not_count(machine):
    opened = machine()
    fill_shards(opened, 0, value=1.0)
    opened.mirror.remove(STEP.folder)
    folder = opened.root / STEP.folder
    folder.mkdir(parents=True)
    for name in ("part-00000.arrow", "part-00000.json", "COMMITTED", "identity.json"):
        (folder / name).write_bytes(b"stale")
    forget()
    assert opened.find(STEP) is None
    fill_shards(opened, 0, 1, 2, value=5.0).commit({}, 3)
    assert values(opened) == values(machine("two")) == [5.0, 5.0, 5.0]


def change(server, bucket, key, how):
    client = server.client
    data = bytearray(client.get_object(Bucket=bucket, Key=f"store/{key}")["Body"].read())
    if how == "cut":
        data = data[:-1]
    elif how == "flipped":
        data[len(data) // 2] ^= 1
    if how == "gone":
        client.delete_object(Bucket=bucket, Key=f"store/{key}")
    else:
        client.put_object(Bucket=bucket, Key=f"store/{key}", Body=bytes(data))


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("part-00001.arrow", "cut"),
        ("part-00001.arrow", "flipped"),
        ("part-00001.arrow", "gone"),
        ("manifest.json", "flipped"),
        ("provenance.json", "cut"),
    ],
)
def test_damage_in_the_bucket_names_the_object_and_is_repaired(machine, server, bucket, name, how):
    run(machine("one"), STEP)
    change(server, bucket, f"{STEP.folder}/{name}", how)
    forget()
    url = f"s3://{bucket}/store/{STEP.folder}/{name}"
    two = machine("two")
    with pytest.raises(DamagedArtifact, match=url):
        two.at(STEP.folder).download()
    assert f"{STEP.folder}/{name}" not in copies(two)
    if how == "cut" or name != "part-00001.arrow":
        assert [entry.state for entry in make_plan([STEP], two)] == ["blocked"]
    (found,) = damages(two).values()
    assert found[0].file == url
    assert list(remove_damaged(two, damages(two))) == [STEP.folder]
    assert run(two, STEP)[1] == {"ran": 1}
    assert values(machine("one")) == [0.0, 1.0, 4.0]


def test_a_damaged_copy_is_fetched_anew(machine):
    run(machine(), STEP)
    opened = machine()
    path = opened.root / SHARD
    path.write_bytes(path.read_bytes()[:-1])
    forget()
    assert values(opened) == [0.0, 1.0, 4.0]


def test_a_copy_that_was_removed_since_it_was_verified_is_fetched_again(machine):
    opened = machine()
    run(opened, TARGET)
    artifact = opened.find(STEP)
    before = artifact.shard(1).read_bytes()
    (opened.root / SHARD).unlink()
    assert artifact.shard(1).read_bytes() == before


def test_damage_of_a_committed_shard_of_an_unfinished_artifact_is_found(machine, server, bucket):
    fill_shards(machine("one"), 0, 1)
    assert damages(machine("two")) == {}
    change(server, bucket, SHARD, "flipped")
    assert [damage.file for damage in damages(machine("two"))[STEP.folder]] == [f"s3://{bucket}/store/{SHARD}"]


def test_what_no_run_reaches_goes_from_the_bucket(machine, server, bucket):
    run(machine("one"), TARGET)
    fill_shards(machine("one"))
    lonely = machine("one")
    writer = lonely.writer(number(9))
    writer.begin()
    writer.write_shard(0, table_of([0], {"x": np.zeros(1)}))
    begun = lonely.writer(number(8))
    begun.begin()
    writer.commit({})
    two = machine("two")
    found = garbage(two, None, 0.0)
    assert [(one.kind, one.place) for one in found] == [("artifact", number(9).folder)], "what is begun stays an hour"
    assert found[0].bytes == sum(
        len(data) for key, data in server.objects(bucket).items() if key.startswith(f"store/{number(9).folder}/")
    )
    assert list(remove(two, found)) == found
    assert not [key for key in server.objects(bucket) if number(9).folder in key]
    assert machine("one").find(number(9)) is None
    assert machine("one").find(TARGET) is not None


def test_what_else_is_in_the_bucket_stays(machine, server, bucket, monkeypatch):
    monkeypatch.setattr("orchestration.runs.gc._SETTLED_SECONDS", -60.0)  # as if all had been there for an hour
    server.client.put_object(Bucket=bucket, Key="store/docs/images/logo.png", Body=b"mine")
    server.client.put_object(Bucket=bucket, Key="store/docs/images/COMMITTED", Body=b"mine")
    opened = machine()
    assert (garbage(opened, None, -60.0), damages(opened), opened.artifacts()) == ([], {}, [])


def test_a_run_moves_between_folders_and_buckets(machine, tmp_path):
    folder = open_store(tmp_path / "folder")
    record, _ = run(folder, TARGET)
    export_run(folder, record, tmp_path / "a.tar")
    there = machine("one")
    assert import_run(there, tmp_path / "a.tar").artifacts == 3
    assert import_run(machine("two"), tmp_path / "a.tar").known == 3
    two = machine("two")
    assert {entry.state for entry in make_plan([TARGET], two)} == {"cached"}
    assert export_run(two, find_run(record.run_id, two), tmp_path / "b.tar").missing == ()
    assert (tmp_path / "b.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()
    assert damages(machine("three")) == {}


def test_a_bucket_that_cannot_be_written_any_more_fails_the_step_alone(machine, server):
    opened = machine()
    server.before = lambda request: refusal(403, "AccessDenied") if request.method == "PUT" else None
    outcomes = run_plan(make_plan([number(2)], opened), lambda: InlineEngine(opened, lambda *_: None), lambda *_: None)
    (outcome,) = outcomes.values()
    assert (outcome.state, outcome.exit_code) == ("failed", 2)
    assert "cannot be written (AccessDenied)" in outcome.error
    server.before = None
    assert run(opened, number(2))[1] == {"ran": 1}


def test_a_full_disk_for_copies_is_told(machine, monkeypatch):
    run(machine("one"), TARGET)
    two = machine("two")
    found = two.find(STEP)
    assert found.rows == 3

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestration.store.mirror.os.replace", full)
    with pytest.raises(StoreError, match=r"No space left on device.*\$VOCABSEM_CACHE"):
        found.shards()


DRIVER = """
import sys
from pathlib import Path
from tests.orchestration.store.test_mirror import TARGET, open_store, run
print(dict(run(open_store(sys.argv[1]), TARGET)[1]))
"""


@pytest.mark.parametrize(("held", "left"), [("part-00001.json", 2), ("COMMITTED", 0)])
def test_a_driver_killed_while_it_uploads_leaves_nothing_that_is_read(machine, server, bucket, tmp_path, held, left):
    """The request that puts an object is held back, and the driver killed meanwhile."""
    reached, killed = threading.Event(), threading.Event()
    key = f"/{bucket}/store/{STEP.folder}/{held}"

    def before(request):
        if request.method == "PUT" and request.path == key and not killed.is_set():
            reached.set()
            killed.wait(60)
            return refusal(500, "InternalError")
        return None

    server.before = before
    environment = {**os.environ, "VOCABSEM_CACHE": str(tmp_path / "killed"), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", DRIVER, f"s3://{bucket}/store"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as driver:
        assert reached.wait(60)
        driver.send_signal(signal.SIGKILL)
    killed.set()
    for name in ("elsewhere", "killed"):
        assert machine(name).find(STEP) is None
        assert damages(machine(name)) == {}
    log = tmp_path / "log"
    log.touch()
    again = squares(3, log)
    record, counts = run(machine("elsewhere"), total(number(2), again))
    assert counts == {"ran": 2, "cached": 1}
    assert log.read_text().count("shard") == left
    after, counts = run(machine("killed"), TARGET)
    assert (after.run_id, counts) == (record.run_id, {"cached": 3})
    assert values(machine("killed")) == [0.0, 1.0, 4.0]
    assert damages(machine("killed")) == {}
    assert json.loads(machine("killed").find(TARGET).path("total.json").read_text()) == 6.0
