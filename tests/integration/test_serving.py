"""Every fitted calibrator is an MLflow model that gives the labels its run recorded, in Python and over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from mlflow import MlflowClient

from orchestration.store.artifacts import open_store
from orchestration.tracking.mlflow_client import default_uri
from tests.integration.workspace import REPOSITORY
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column

NAMES = ["negative", "positive"]
START_SECONDS = 120


@pytest.fixture(scope="module")
def tracked(finished) -> tuple[str, dict[str, Any]]:
    """The address of the MLflow that the finished run filled, and its child runs by name."""
    store = finished[0] / ".vocabsem" / "store"
    uri = default_uri(store)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("vocabsem")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`vocabsem.method` != ''")
    return uri, {run.info.run_name: run for run in runs}


@pytest.fixture(scope="module")
def texts(finished) -> list[str]:
    lines = (finished[0] / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def recorded(finished, run: Any) -> list[str]:
    """The labels that the fit of an MLflow run predicted, from the store."""
    key = run.data.tags["vocabsem.key"].split(":")[1]
    store = open_store(finished[0] / ".vocabsem" / "store")
    (fit,) = [a for a in store.artifacts() if a.folder.parent.name == "fit" and a.folder.name == key[:16]]
    return [NAMES[number] for number in read_column(fit, "prediction")]


def folder_of(uri: str, run: Any) -> str:
    return MlflowClient(tracking_uri=uri).download_artifacts(run.info.run_id, "model")


@pytest.mark.parametrize(
    "name", ["calibration small reference seed 0", "calibration small reference seed 1", "linear-probe small reference"]
)
def test_a_loaded_model_gives_the_labels_of_its_run(name, tracked, finished, texts, monkeypatch):
    uri, runs = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # set_tracking_uri would last beyond this test
    model = mlflow.pyfunc.load_model(f"runs:/{runs[name].info.run_id}/model")
    expected = recorded(finished, runs[name])
    assert len(set(expected)) == 2
    assert model.predict(texts) == expected
    assert model.predict(pandas.DataFrame({"anything": texts[:3]})) == expected[:3]


def test_what_needs_more_than_its_fit_has_no_model(tracked):
    uri, runs = tracked
    for name in ("knn small reference", "zero-shot small reference", "affinity small reference"):
        assert not MlflowClient(tracking_uri=uri).list_artifacts(runs[name].info.run_id, "model")


def test_a_model_holds_no_pickle(tracked):
    folder = Path(folder_of(tracked[0], tracked[1]["calibration small reference seed 0"]))
    names = sorted(path.name for path in folder.rglob("*") if path.is_file())
    data = ["classifier.json", "fitted.safetensors", "input_example.json", "serving_input_example.json"]
    assert names == sorted([*data, "MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"])


def test_another_language_model_is_refused(tracked, tmp_path):
    folder = folder_of(tracked[0], tracked[1]["calibration small reference seed 0"])
    other = shutil.copytree(REPOSITORY / "workflows/catalog/models/reference-1m", tmp_path / "other")
    with pytest.raises(ConfigError, match=r"holds another model than the one this classifier was fitted on"):
        mlflow.pyfunc.load_model(folder, model_config={"model": str(other)})
    with pytest.raises(ConfigError, match=r"is not at .*nowhere; name its folder"):
        mlflow.pyfunc.load_model(folder, model_config={"model": str(tmp_path / "nowhere")})


def test_a_served_model_gives_the_labels_of_its_run(tracked, finished, texts, tmp_path):
    run = tracked[1]["calibration small reference seed 0"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", folder_of(tracked[0], run)]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command + options, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": texts}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.load(answer)["predictions"] == recorded(finished, run)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < START_SECONDS:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"no answer after {START_SECONDS} s: {log.read_text()}")
