"""Records of runs in a bucket: seen from every machine, gone on with from any, there once all of one is."""

import json
import shutil
import time
from collections import Counter

import pytest

from orchestration.errors import StoreError
from orchestration.runs.lookup import find_run
from orchestration.runs.record import open_run, runs
from orchestration.tracking.projection import Filled, fill, write_projection
from orchestration.tracking.tracker import TrackedModel, TrackedRun
from tests.fake_tracker import MemoryTracker
from tests.orchestration.steps import number
from tests.orchestration.store.test_mirror import STEP, TARGET, forget, run
from tests.s3_server import refusal


def test_a_run_is_seen_and_gone_on_with_from_elsewhere(machine):
    record, _ = run(machine("one"), TARGET)
    two = machine("two")
    seen = find_run(record.run_id, two)
    assert (seen.read("results.json"), (seen.folder / "workflow.yaml").read_text()) == ([], "workflow: test\n")
    assert set(seen.keys_made()) == {step.key for step in (number(2), STEP, TARGET)}
    seen.write("results.json", [{"score": 1}])
    seen.write("mlflow.json", {"run_id": "of this machine"})
    seen.push()
    one = find_run(record.run_id, machine("one"))
    assert one.read("results.json") == [{"score": 1}]
    assert one.read("mlflow.json") is None
    one.write("results.json", [{"score": 2}])
    assert find_run(record.run_id, machine("one")).read("results.json") == [{"score": 2}], "what changed here stays"


def while_getting(server, key, act):
    """Act once, within the request that gets an object."""

    def before(request):
        if request.method == "GET" and request.path.endswith(key):
            server.before = None  # what follows asks the server too
            act()

    server.before = before


def test_what_another_process_puts_while_this_one_looks_is_remembered(machine, server):
    first, second = (open_run(machine("two"), [number(value)], "workflow: test\n") for value in (1, 2))
    one = {record.run_id: record for record in runs(machine("one"))}

    def put(record, score):
        record.write("results.json", [{"score": score}])
        record.push()

    put(first, 1)
    while_getting(server, f"{first.run_id}/results.json", lambda: put(one[second.run_id], 1))
    assert len(runs(machine("one"))) == 2
    put(find_run(second.run_id, machine("two")), 2)
    assert find_run(second.run_id, machine("one")).read("results.json") == [{"score": 2}]


def test_what_was_put_before_the_bucket_failed_is_remembered(machine, server):
    record = open_run(machine("two"), [number(1)], "workflow: test\n")
    (one,) = runs(machine("one"))
    for name in ("a.json", "b.json"):
        one.write(name, "ours")
    server.before = lambda request: refusal(403, "AccessDenied") if request.path.endswith("b.json") else None
    with pytest.raises(StoreError, match="AccessDenied"):
        one.push()
    server.before = None
    find_run(record.run_id, machine("two")).write("a.json", "theirs")
    record.push()
    assert find_run(record.run_id, machine("one")).read("a.json") == "theirs"


def test_what_is_written_while_this_process_brings_the_rest_counts_as_changed_here(machine, server, bucket):
    record = open_run(machine("two"), [number(1)], "workflow: test\n")
    (one,) = runs(machine("one"))
    for name in ("a.json", "b.json"):
        record.write(name, "theirs")
    record.push()

    def act():
        until = time.monotonic() + 60
        while one.read("b.json") != "theirs":
            assert time.monotonic() < until
            time.sleep(0.01)
        one.write("b.json", "ours")

    while_getting(server, f"{record.run_id}/a.json", act)
    one.download()
    assert (one.read("a.json"), one.read("b.json")) == ("theirs", "ours")
    one.push()
    assert json.loads(server.objects(bucket)[f"store/runs/{record.run_id}/b.json"]) == "ours"


def test_models_are_brought_for_mlflow_unless_their_artifact_is_gone(machine, tmp_path):
    """A model may also have a file of the user's own, which is in no bucket."""
    record, _ = run(machine("one"), TARGET)
    own = tmp_path / "method.py"
    own.touch()
    files = {"fitted": record.mirror.root / TARGET.folder / "total.json", "method.py": own}
    model = TrackedModel("json", (), {}, files, {})
    write_projection(record, "mine", TrackedRun(record.run_id, "a", "FINISHED", model=model))
    record.push()
    tracker = MemoryTracker()
    shutil.rmtree(record.mirror.root / TARGET.folder)
    forget()
    assert fill(record, tracker) == Filled("m1", ())
    assert files["fitted"].is_file()
    machine("two").mirror.remove(TARGET.folder)
    shutil.rmtree(record.mirror.root / TARGET.folder)
    forget()
    assert fill(record, tracker) == Filled("m2", ("a",))


def test_a_run_is_there_once_all_of_it_is(machine, server, bucket):
    one, two, found = machine("one"), machine("two"), []

    def before(request):
        if request.method == "PUT" and "/runs/" in request.path:
            server.before = None  # what follows asks the server too
            found.append({key.rpartition("/")[2] for key in server.keys(bucket) if "/runs/" in key})
            if found[-1]:  # another driver comes when the first has put a part
                open_run(two, [TARGET], "workflow: test\n")
            server.before = before

    server.before = before
    open_run(one, [TARGET], "workflow: test\n")
    assert found == [set(), {"workflow.yaml"}]


def test_a_run_whose_workflow_is_not_there_yet_gets_it(machine, server, bucket):
    record = open_run(machine("one"), [TARGET], "workflow: test\n")
    key = f"store/runs/{record.run_id}/workflow.yaml"
    server.client.delete_object(Bucket=bucket, Key=key)
    open_run(machine("two"), [TARGET], "workflow: test\n")
    assert server.objects(bucket)[key] == b"workflow: test\n"


def test_what_processes_did_for_one_run_adds_up(machine, monkeypatch):
    record, _ = run(machine("one"), TARGET)
    machine("one").mirror.remove(TARGET.folder)
    monkeypatch.setattr("orchestration.runs.record._PROCESS", "another")
    run(machine("two"), TARGET)
    names = {path.name for path in find_run(record.run_id, machine("three")).folder.glob("events-*")}
    assert len(names) == 2
    assert Counter(find_run(record.run_id, machine("three")).keys_made())[TARGET.key] == 2
