"""MLflow holds what a run's files hold: once, and again after it was away."""

import json
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from mlflow import MlflowClient

from orchestration.tracking import lock, mlflow_client
from orchestration.tracking.lock import one_at_a_time
from orchestration.tracking.mlflow_client import (
    KEY_TAG,
    MlflowTracker,
    default_uri,
    server_command,
    without_credentials,
)
from orchestration.tracking.tracker import ExperimentDeleted, TrackedRun, TrackingError


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return default_uri(tmp_path_factory.mktemp("tracking") / "store")


def parent(key, status="FINISHED", **changes):
    wanted = {
        "params": {"tasks": "a, b"},
        "metrics": {"a/knn": 0.5},
        "tags": {"vocabsem.workflow": "compare"},
        "tables": {"results.json": [{"task": "a", "mean": 0.5}, {"task": "b", "mean": 0.75}]},
        **changes,
    }
    return TrackedRun(key, f"compare {key}", status, **wanted)


def child(key, value):
    return TrackedRun(key, f"fit {key}", "FINISHED", params={"k": "3"}, metrics={"accuracy": value})


def runs(uri, experiment):
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, {run.data.tags[KEY_TAG]: run for run in found}, len(found)


def test_a_run_and_its_children_are_written_once_however_often_they_are_projected(uri):
    wanted, heard = (parent("p1"), (child("c1", 0.25), child("c2", 0.5))), []
    first = MlflowTracker(uri).write("once", *wanted, lambda *told: heard.append(told)).run_id
    assert heard == [(1, 2), (2, 2)]
    assert MlflowTracker(uri).write("once", *wanted).run_id == first
    client, found, count = runs(uri, "once")
    assert count == len(found) == 3
    assert found["p1"].info.run_id == first
    assert {key: run.info.status for key, run in found.items()} == dict.fromkeys(("p1", "c1", "c2"), "FINISHED")
    assert found["c1"].data.tags["mlflow.parentRunId"] == first
    assert found["c2"].data.metrics == {"accuracy": 0.5}
    assert len(client.get_metric_history(found["c2"].info.run_id, "accuracy")) == 1
    assert "results.json" in found["p1"].data.tags["mlflow.loggedArtifacts"]
    table = json.loads(Path(client.download_artifacts(first, "results.json")).read_text())
    assert table == {"columns": ["task", "mean"], "data": [["a", 0.5], ["b", 0.75]]}


def test_a_run_that_was_begun_is_filled_in_by_the_end(uri):
    begun = MlflowTracker(uri).write("begun", parent("p1", "RUNNING", metrics={}, tables={})).run_id
    assert runs(uri, "begun")[1]["p1"].info.status == "RUNNING"
    assert MlflowTracker(uri).write("begun", parent("p1"), (child("c1", 1.0),)).run_id == begun
    _, found, count = runs(uri, "begun")
    assert (count, found["p1"].info.status, found["p1"].data.metrics) == (2, "FINISHED", {"a/knn": 0.5})


def test_what_was_written_in_part_is_completed_and_not_doubled(uri):
    MlflowTracker(uri).write("part", parent("p1"), (child("c1", 0.25),))
    MlflowTracker(uri).write("part", parent("p1"), (child("c1", 0.25), child("c2", 0.5)))
    assert runs(uri, "part")[2] == 3


def test_processes_that_begin_a_run_at_once_leave_one_database_and_one_run(tmp_path):
    uri = default_uri(tmp_path / "store")
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        ids = {
            shown.run_id
            for shown in pool.map(
                MlflowTracker(uri).write, ["at once"] * 4, [parent("p1")] * 4, [(child("c1", 0.5),)] * 4
            )
        }
    assert len(ids) == 1
    assert runs(uri, "at once")[2] == 2


def test_a_process_that_never_ends_its_writing_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.05)
    held = tmp_path / "mlflow.db.lock"
    with one_at_a_time(held), pytest.raises(TrackingError, match="another process has been writing"):
        MlflowTracker(default_uri(tmp_path / "store")).write("held", parent("p1"))


def test_a_lock_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(TrackingError, match="cannot be written"),
        one_at_a_time(tmp_path / "file" / "a.lock"),
    ):
        pass


def test_a_server_that_does_not_answer_is_one_error_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=r"MLflow at http://127\.0\.0\.1:9: ") as told:
        MlflowTracker("http://user:secret@127.0.0.1:9").write("x", parent("p"))
    assert "secret" not in str(told.value)


def test_credentials_are_stripped_and_nothing_else():
    assert without_credentials("http://user:secret@host:5000/a?b=c") == "http://host:5000/a?b=c"
    assert without_credentials("sqlite:////folder/mlflow.db") == "sqlite:////folder/mlflow.db"


def test_the_server_binds_to_the_address_it_is_given(tmp_path):
    command = server_command(default_uri(tmp_path / "store"), "127.0.0.1", 5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--artifacts-destination") + 1] == str(tmp_path / "mlartifacts")


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("postgresql://user:secret@h/db", "' that this address needs is not installed"),
        ("mysql://h/db", "module 'MySQLdb' that this address needs is not installed"),
        ("http://[::1/x", "Invalid IPv6 URL"),
        ("nonsense:///x", "MLflow at nonsense:///x: "),
    ],
)
def test_whatever_mlflow_raises_is_one_line(address, cause):
    with pytest.raises(TrackingError) as told:
        MlflowTracker(address).write("x", parent("p"))
    assert cause in str(told.value)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


def test_a_deleted_experiment_is_named_with_what_to_do(uri):
    MlflowTracker(uri).write("deleted", parent("p1"))
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(ExperimentDeleted, match=r"experiment 'deleted' was deleted there\. Restore it"):
        MlflowTracker(uri).write("deleted", parent("p1"))


def test_a_database_of_another_user_is_named_with_its_owner(tmp_path, monkeypatch):
    uri = default_uri(tmp_path / "store")
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(mlflow_client.os, "access", lambda *_: False)
    with pytest.raises(TrackingError, match=r"mlflow\.db: is .*'s and cannot be written by this user"):
        MlflowTracker(uri).write("x", parent("p"))


def test_a_group_can_write_a_database_where_the_umask_lets_it(tmp_path):
    before = os.umask(0o002)
    try:
        MlflowTracker(default_uri(tmp_path / "a?b%20c" / "store")).write("x", parent("p"))
    finally:
        os.umask(before)
    folder = tmp_path / "a?b%20c"
    assert [path.name for path in tmp_path.iterdir()] == ["a?b%20c"]
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("mlflow.db", "mlflow.db.lock")} == {0o664}
