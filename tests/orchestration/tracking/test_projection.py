"""What MLflow shall hold of a run is a file; MLflow is told once, and again where it is another or was lost."""

import dataclasses

import pytest

from orchestration.errors import StoreError
from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from orchestration.tracking import projection
from orchestration.tracking.mlflow_client import TrackedModel, TrackedRun, TrackingError
from orchestration.tracking.view import Shown
from tests.orchestration.steps import number

HERE = "http://127.0.0.1:1"


@pytest.fixture
def record(tmp_path):
    return open_run(open_store(tmp_path), [number(2)], "workflow: a")


@pytest.fixture
def told(monkeypatch):
    """The arguments of each call that would have gone to MLflow."""
    calls = []
    monkeypatch.setattr(
        projection, "project", lambda *arguments: calls.append(arguments) or Shown(f"m{len(calls)}", "#/x")
    )
    return calls


def parent(record, status="FINISHED"):
    tables = {"results.json": [{"score": 0.5, "a": None}, {"score": 1, "a": "x"}]}
    wanted = {"params": {"k": "3"}, "metrics": {"m": 0.1}, "tags": {"t": "é"}, "tables": tables}
    return TrackedRun("p1", "compare p1", status, **wanted, files=(record.folder / "workflow.yaml",))


def test_mlflow_is_told_exactly_what_was_written(record, told):
    child = TrackedRun("c1", "fit c1", "FINISHED", metrics={"accuracy": 0.25})
    projection.write_projection(record, "mine", parent(record), (child,))
    assert projection.fill(record, HERE) == projection.Filled("m1", ())
    assert told == [(HERE, "mine", parent(record), (child,))]
    assert list(told[0][2].tables["results.json"][0]) == ["score", "a"]  # the order of columns is shown


def with_model(key, file):
    return TrackedRun(key, f"fit {key}", "FINISHED", model=TrackedModel("loader", (), {}, {"fitted": file}, {}))


def test_a_model_whose_files_are_gone_is_left_out_until_they_are_back(record, told, tmp_path):
    kept, lost = with_model("c1", tmp_path / "kept"), with_model("c2", tmp_path / "lost")
    for child in (kept, lost):
        child.model.files["fitted"].touch()
    projection.write_projection(record, "mine", parent(record), (kept, lost))
    lost.model.files["fitted"].unlink()
    assert projection.fill(record, HERE) == projection.Filled("m1", ("fit c2",))
    assert told[0][3] == (kept, dataclasses.replace(lost, model=None))
    assert projection.is_filled(record, HERE), "nothing that is there is lacking"
    lost.model.files["fitted"].touch()
    assert not projection.is_filled(record, HERE)
    assert projection.fill(record, HERE) == projection.Filled("m2", ())
    assert told[1][3] == (kept, lost)


def test_it_counts_as_filled_only_for_the_same_mlflow_and_the_same_content(record, told):
    projection.write_projection(record, "mine", parent(record, "RUNNING"))
    assert not projection.is_filled(record, HERE)
    projection.fill(record, HERE)
    assert projection.is_filled(record, HERE)
    assert projection.is_filled(record, "http://user:secret@127.0.0.1:1")
    assert not projection.is_filled(record, "http://127.0.0.1:2")
    projection.write_projection(record, "mine", parent(record))
    assert not projection.is_filled(record, HERE)
    projection.fill(record, HERE)
    projection.write_projection(record, "another", parent(record))
    assert not projection.is_filled(record, HERE)
    assert projection.mlflow_run_id(record) == "m2"


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "FINISHED"])
def test_only_a_run_whose_end_was_told_is_finished_there(record, told, status):
    projection.write_projection(record, "mine", parent(record, status))
    assert not projection.is_finished(record, HERE)
    projection.fill(record, HERE)
    assert projection.is_finished(record, HERE) == (status == "FINISHED")
    assert not projection.is_finished(record, "http://127.0.0.1:2")


def test_a_workflow_in_other_words_is_told_anew(record, told):
    projection.write_projection(record, "mine", parent(record))
    projection.fill(record, HERE)
    (record.folder / "workflow.yaml").write_text("experiment: another")
    assert not projection.is_finished(record, HERE)


def test_a_lost_database_is_not_a_filled_one(record, told, tmp_path):
    uri = f"sqlite:///{tmp_path / 'gone.db'}"
    projection.write_projection(record, "mine", parent(record))
    projection.fill(record, uri)
    assert not projection.is_filled(record, uri)


def test_a_failure_is_not_taken_for_done(record, monkeypatch):
    def fail(*_):
        raise TrackingError("away")

    monkeypatch.setattr(projection, "project", fail)
    projection.write_projection(record, "mine", parent(record))
    with pytest.raises(TrackingError):
        projection.fill(record, HERE)
    assert not projection.is_filled(record, HERE)
    assert projection.mlflow_run_id(record) is None


def test_a_run_without_a_projection_says_what_to_do(record):
    assert not projection.is_begun(record)
    with pytest.raises(StoreError, match=r"no tracked.json; run its workflow again"):
        projection.fill(record, HERE)
