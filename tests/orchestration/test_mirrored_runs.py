"""Records of runs in a bucket: seen from every machine, gone on with from any, there once all of one is."""

from collections import Counter

from orchestration.lookup import find_run
from orchestration.runs import open_run
from tests.orchestration.steps import number
from tests.orchestration.test_mirror import STEP, TARGET, run


def test_a_run_is_seen_and_gone_on_with_from_elsewhere(machine):
    record, _ = run(machine("one"), TARGET)
    two = machine("two")
    seen = find_run("latest", two)
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
    monkeypatch.setattr("orchestration.runs._PROCESS", "another")
    run(machine("two"), TARGET)
    names = {path.name for path in find_run(record.run_id, machine("three")).folder.glob("events-*")}
    assert len(names) == 2
    assert Counter(find_run(record.run_id, machine("three")).keys_made())[TARGET.key] == 2
