"""What MLflow shall hold of a run is a file; MLflow is told once, and again where it is another or was lost."""

import dataclasses

import pytest

from orchestration.errors import StoreError
from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from orchestration.tracking import projection
from orchestration.tracking.mlflow_client import MlflowTracker
from orchestration.tracking.tracker import TrackedModel, TrackedRun, TrackingError
from tests.fake_tracker import MemoryTracker
from tests.orchestration.steps import number


@pytest.fixture
def record(tmp_path):
    return open_run(open_store(tmp_path), [number(2)], "workflow: a")


@pytest.fixture
def tracker():
    return MemoryTracker()


def parent(record, status="FINISHED"):
    tables = {"results.json": [{"score": 0.5, "a": None}, {"score": 1, "a": "x"}]}
    wanted = {"params": {"k": "3"}, "metrics": {"m": 0.1}, "tags": {"t": "é"}, "tables": tables}
    return TrackedRun("p1", "compare p1", status, **wanted, files=(record.folder / "workflow.yaml",))


def test_mlflow_is_told_exactly_what_was_written(record, tracker):
    child = TrackedRun("c1", "fit c1", "FINISHED", metrics={"accuracy": 0.25})
    projection.write_projection(record, "mine", parent(record), (child,))
    assert projection.fill(record, tracker) == projection.Filled("m1", ())
    assert tracker.told == [("mine", parent(record), (child,))]
    assert list(tracker.told[0][1].tables["results.json"][0]) == ["score", "a"]  # the order of columns is shown


def with_model(key, file):
    return TrackedRun(key, f"fit {key}", "FINISHED", model=TrackedModel("loader", (), {}, {"fitted": file}, {}))


def test_a_model_whose_files_are_gone_is_left_out_until_they_are_back(record, tracker, tmp_path):
    kept, lost = with_model("c1", tmp_path / "kept"), with_model("c2", tmp_path / "lost")
    for child in (kept, lost):
        child.model.files["fitted"].touch()
    projection.write_projection(record, "mine", parent(record), (kept, lost))
    lost.model.files["fitted"].unlink()
    assert projection.fill(record, tracker) == projection.Filled("m1", ("fit c2",))
    assert tracker.told[0][2] == (kept, dataclasses.replace(lost, model=None))
    assert projection.is_filled(record, tracker), "nothing that is there is lacking"
    lost.model.files["fitted"].touch()
    assert not projection.is_filled(record, tracker)
    assert projection.fill(record, tracker) == projection.Filled("m2", ())
    assert tracker.told[1][2] == (kept, lost)


def test_it_counts_as_filled_only_for_the_same_mlflow_and_the_same_content(record, tracker):
    projection.write_projection(record, "mine", parent(record, "RUNNING"))
    assert not projection.is_filled(record, tracker)
    projection.fill(record, tracker)
    assert projection.is_filled(record, tracker)
    assert not projection.is_filled(record, MemoryTracker("another"))
    projection.write_projection(record, "mine", parent(record))
    assert not projection.is_filled(record, tracker)
    projection.fill(record, tracker)
    projection.write_projection(record, "another", parent(record))
    assert not projection.is_filled(record, tracker)
    assert projection.mlflow_run_id(record) == "m2"


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "FINISHED"])
def test_only_a_run_whose_end_was_told_is_finished_there(record, tracker, status):
    projection.write_projection(record, "mine", parent(record, status))
    assert not projection.is_finished(record, tracker)
    projection.fill(record, tracker)
    assert projection.is_finished(record, tracker) == (status == "FINISHED")
    assert not projection.is_finished(record, MemoryTracker("another"))


def test_a_workflow_in_other_words_is_told_anew(record, tracker):
    projection.write_projection(record, "mine", parent(record))
    projection.fill(record, tracker)
    (record.folder / "workflow.yaml").write_text("experiment: another")
    assert not projection.is_finished(record, tracker)


def test_a_lost_database_is_not_a_filled_one(record, tracker, monkeypatch):
    projection.write_projection(record, "mine", parent(record))
    projection.fill(record, tracker)
    monkeypatch.setattr(tracker, "is_there", lambda: False)
    assert not projection.is_filled(record, tracker)


def test_an_mlflow_is_known_without_its_password_and_by_its_file(tmp_path):
    database = tmp_path / "mlflow.db"
    assert MlflowTracker("http://user:secret@127.0.0.1:1").name == MlflowTracker("http://127.0.0.1:1").name
    assert MlflowTracker("http://127.0.0.1:1").is_there()
    assert not MlflowTracker(f"sqlite:///{database}").is_there()
    database.touch()
    assert MlflowTracker(f"sqlite:///{database}").is_there()


def test_a_failure_is_not_taken_for_done(record):
    tracker = MemoryTracker(error=TrackingError("away"))
    projection.write_projection(record, "mine", parent(record))
    with pytest.raises(TrackingError):
        projection.fill(record, tracker)
    assert not projection.is_filled(record, tracker)
    assert projection.mlflow_run_id(record) is None


def test_a_run_without_a_projection_says_what_to_do(record, tracker):
    assert not projection.is_begun(record)
    with pytest.raises(StoreError, match=r"no tracked.json; run its workflow again"):
        projection.fill(record, tracker)
