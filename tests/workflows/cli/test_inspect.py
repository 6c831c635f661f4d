"""What the store tells of an artifact and of a run."""

import json

import pytest

from orchestration.errors import DamagedArtifact
from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.lookup import find_artifact
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, squares, total
from tests.workflows.results.test_model import entry
from workflows.cli.inspect import artifact_document, artifact_text, run_document, run_text, why_document, why_text
from workflows.results.model import stored

TARGETS = [total(number(2), number(3)), total(number(2), number(3), factor=2.0), squares(2)]


@pytest.fixture
def store(tmp_path):
    store, quiet = open_store(tmp_path), lambda *_: None
    run_plan(make_plan(TARGETS, store), lambda: InlineEngine(store, quiet), quiet)
    return store


def document(store, step):
    return artifact_document(find_artifact(step.key, store), store)


def test_an_artifact_shows_its_identity_inputs_files_numerics_and_provenance(store):
    found = document(store, TARGETS[0])
    assert (found["step"], found["key"], found["identity"]) == ("total", TARGETS[0].key, {"factor": 1.0})
    assert found["inputs"]["n1"] == {"key": number(3).key, "folder": str(store.root / number(3).folder)}
    assert found["files"]["total.json"] == len("4.0")
    assert "finished" in found["provenance"]
    assert document(store, squares(2))["numerics"] == [{"device": "cpu"}]
    assert json.loads(json.dumps(found)) == found
    text = artifact_text(found)
    for part in (TARGETS[0].key, "factor", str(store.root / number(3).folder), "total.json", "provenance"):
        assert part in text


def test_an_input_that_was_removed_is_said_to_be_missing(store):
    folder = store.root / number(3).folder
    folder.rename(store.root.parent / "elsewhere")
    found = document(store, TARGETS[0])
    assert found["inputs"]["n1"]["folder"] is None
    assert f"{number(3).key} (not in this store)" in artifact_text(found)
    assert f"n1: {number(3).key[:16]} (not in this store)" in why_text(
        why_document(find_artifact(TARGETS[0].key, store), store)
    )


def test_a_damaged_artifact_is_not_shown_as_whole(store):
    (store.root / number(2).folder / "part-00000.arrow").write_bytes(b"short")
    with pytest.raises(DamagedArtifact, match=r"part-00000\.arrow: found 5 bytes"):
        document(store, number(2))


def test_why_names_fields_inputs_the_nearest_other_and_the_runs(store):
    record = open_run(store, TARGETS[:2], "workflow: a")
    open_run(store, [squares(2)], "workflow: b")
    found = why_document(find_artifact(TARGETS[1].key, store), store)
    assert found["nearest"] == {
        "folder": TARGETS[0].folder,
        "changes": [{"field": "identity.factor", "old": 1.0, "new": 2.0}],
    }
    assert found["runs"] == [{"run_id": record.run_id, "label": "total x 2.0"}]
    assert found["inputs"]["n0"]["identity"] == {"value": 2}
    lines = why_text(found).splitlines()
    assert lines[0].startswith(f"total/{TARGETS[1].key[:16]}")
    assert f"├─ n0: {number(2).folder}   value 2" in lines
    assert f"└─ n1: {number(3).folder}   value 3" in lines
    assert "  factor 1.0 -> 2.0" in lines
    assert f"  {record.run_id}   as 'total x 2.0'" in lines


def test_why_of_the_only_one_of_its_kind_says_so(store):
    found = why_document(find_artifact(squares(2).key, store), store)
    assert (found["nearest"], found["runs"]) == (None, [])
    assert "no other squares in this store" in why_text(found)
    assert "no run of this store uses it" in why_text(found)


def test_an_absent_field_is_shown_as_absent(store):
    other = total(number(2), factor=2.0)
    run_plan(make_plan([other], store), lambda: InlineEngine(store, lambda *_: None), lambda *_: None)
    (change,) = why_document(find_artifact(other.key, store), store)["nearest"]["changes"]
    assert change == {"field": "inputs.n1", "old": number(3).key}
    assert "-> (absent)" in why_text(why_document(find_artifact(other.key, store), store))


def test_a_run_shows_its_workflow_and_results(store):
    record = open_run(store, TARGETS, "workflow: compare   # mine\n")
    assert run_text(run_document(record)).endswith("no results yet")
    results = [entry(), entry(method="affinity", sd_seeds=None)]
    record.write("results.json", stored(results))
    record.write("mlflow.json", {"run_id": "m1", "page": "#/x"})
    found = run_document(record)
    assert (found["run_id"], found["steps"], found["mlflow_run_id"]) == (record.run_id, 5, "m1")
    assert found["keys"][TARGETS[1].folder] == "total x 2.0"
    text = run_text(found)
    assert find_artifact(TARGETS[1].folder, store).manifest["key"] == TARGETS[1].key
    assert f"  {TARGETS[1].folder} " in text
    for part in ("total x 2.0", "workflow: compare   # mine", "affinity", "0.410 to 0.590", "m1"):
        assert part in text
