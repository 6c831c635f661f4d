"""`sync` fills in what MLflow lacks, from the records alone."""

import pytest

from orchestration.errors import StoreError
from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from orchestration.tracking import projection
from orchestration.tracking.mlflow_client import MlflowTracker, default_uri
from orchestration.tracking.tracker import ExperimentDeleted, Shown, TrackedModel, TrackedRun
from tests.fake_tracker import MemoryTracker
from tests.orchestration.steps import number
from workflows.cli.sync import Synced, sync, synced_text


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


@pytest.fixture
def tracker():
    return MemoryTracker()


def ended(store, value):
    record = open_run(store, [number(value)], "workflow: a")
    projection.write_projection(record, "mine", TrackedRun(record.run_id, "a", "FINISHED"))
    return record


def states(store, tracker, run=None):
    return {entry.run_id: (entry.state, entry.mlflow_run_id) for entry in sync(store, tracker, run, print)}


def test_every_run_is_filled_in_once(store, tracker):
    a, b = ended(store, 1), ended(store, 2)
    killed = open_run(store, [number(3)], "workflow: a")
    assert states(store, tracker)[killed.run_id] == ("empty", None)
    assert len(tracker.told) == 2
    assert {state for state, _ in states(store, tracker).values()} == {"complete", "empty"}
    assert len(tracker.told) == 2
    elsewhere = states(store, MemoryTracker("another"))
    assert (elsewhere[a.run_id][0], elsewhere[b.run_id][0]) == ("filled", "filled")


def test_a_named_run_is_filled_in_whatever_was_told_before(store, tracker):
    record = ended(store, 1)
    for number_of_calls in (1, 2):
        assert states(store, tracker, run=record.run_id[:6]) == {record.run_id: ("filled", f"m{number_of_calls}")}
    with pytest.raises(StoreError, match="no run 'ffff"):
        states(store, tracker, run="ffff" if not record.run_id.startswith("ffff") else "ffff0")


def test_a_run_whose_artifacts_are_gone_keeps_no_later_one_from_mlflow(store, tmp_path):
    def fit(record, file):
        file.write_bytes(b"fitted")
        model = TrackedModel("json", (), {}, {"fitted": file}, {})
        parent = TrackedRun(record.run_id, "a", "FINISHED")
        child = TrackedRun(f"{record.run_id}:fit", "fit", "FINISHED", model=model)
        projection.write_projection(record, "mine", parent, (child,))

    files = {open_run(store, [number(value)], "workflow: a"): tmp_path / f"{value}.safetensors" for value in (1, 2)}
    for record, file in files.items():
        fit(record, file)
    first, last = files
    files[first].unlink()
    done = list(sync(store, MlflowTracker(default_uri(tmp_path / "store")), None, print))
    assert [(one.run_id, one.state, one.without) for one in done] == [
        (first.run_id, "filled", ("fit",)),
        (last.run_id, "filled", ()),
    ]
    told = f"MLflow run {done[0].mlflow_run_id}, without the model of fit: its files are missing; run the workflow"
    assert told in synced_text(done)
    many = Synced("a", "filled", "m", tuple("abcde"))
    assert "without the model of a, b, c, 2 more: " in synced_text([many])


def test_the_text_says_what_was_done(store, tracker):
    record = ended(store, 1)
    lines = synced_text(list(sync(store, tracker, None, print))).splitlines()
    assert lines == [f"run {record.run_id}   filled in, MLflow run m1", "1 of 1 runs filled in"]


def test_a_deleted_experiment_keeps_no_other_run_from_mlflow(store, tracker, monkeypatch):
    first, last = ended(store, 1), ended(store, 2)

    def tell(_experiment, parent, *_):
        if parent.key == first.run_id:
            raise ExperimentDeleted("it was deleted")
        return Shown("m", "#/x")

    monkeypatch.setattr(tracker, "write", tell)
    done = list(sync(store, tracker, None, print))
    assert [(one.run_id, one.state) for one in done] == [(first.run_id, "refused"), (last.run_id, "filled")]
    assert f"run {first.run_id}   not filled in: it was deleted" in synced_text(done)
