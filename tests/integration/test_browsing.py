"""What a person finds in MLflow of a comparison: predictions as a table, the data sets, links between runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from orchestration.tracking import default_uri
from tests.integration.cluster import free_ports
from tests.integration.workspace import METHODS


@pytest.fixture(scope="module")
def browsed(finished) -> tuple[MlflowClient, list[Any]]:
    """A client, and the runs of the experiment."""
    client = MlflowClient(tracking_uri=default_uri(finished[0] / ".vocabsem" / "store"))
    experiment = client.get_experiment_by_name("vocabsem")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def parent(runs: list[Any]) -> Any:
    (only,) = [run for run in runs if run.data.tags.get("vocabsem.workflow") == "compare"]
    return only


def test_predictions_are_a_table_with_a_line_a_test_row_and_a_column_a_method(finished, browsed):
    client, runs = browsed
    name = "predictions-reference-small.json"
    table = json.loads(Path(client.download_artifacts(parent(runs).info.run_id, name)).read_text())
    rows = [json.loads(line) for line in (finished[0] / "test.jsonl").read_text().splitlines()]
    assert table["columns"] == ["row", "text", "label", *METHODS]
    assert [line[1:3] for line in table["data"]] == [[row["text"][:200], row["label"]] for row in rows]
    scores = {result["method"]: result for result in finished[1]["results"]}
    for place, method in enumerate(METHODS, start=3):
        right = sum(line[place] == line[2] for line in table["data"]) / len(rows)
        if len(scores[method]["seeds"]) == 1 or scores[method]["sd_seeds"] is None:
            assert right == pytest.approx(scores[method]["mean"])


def test_every_table_is_told_to_mlflow_as_one(browsed):
    told = json.loads(parent(browsed[1]).data.tags["mlflow.loggedArtifacts"])
    names = ["predictions-reference-small.json", "results.json"]
    assert sorted(entry["path"] for entry in told) == names
    assert {entry["type"] for entry in told} == {"table"}


def test_runs_name_the_data_they_read(browsed):
    _, runs = browsed
    named = {run.info.run_name: list(run.inputs.dataset_inputs) for run in runs}
    contexts = {
        name: {(one.dataset.name, tag.value) for one in inputs for tag in one.tags} for name, inputs in named.items()
    }
    assert contexts["linear-probe small"] == {("small", "train"), ("small", "test")}
    assert contexts["zero-shot small"] == {("small", "test")}  # it reads no training rows
    assert contexts[parent(runs).info.run_name] == {("small", "train"), ("small", "test")}


def test_results_come_first_and_then_one_warning_of_an_mlflow_that_cannot_be_used(finished, own_store):
    command = [sys.executable, "-m", "workflows", "run", "workflow.yaml", "--executor", "inline"]
    command += ["--store", str(own_store), "--mlflow", "postgresql://h/db"]
    done = subprocess.run(command, cwd=finished[0], stdout=-1, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    *shown, warning = done.stdout.splitlines()
    assert any(line.strip().startswith("linear-probe ") for line in shown)
    assert [line for line in shown if "MLflow" in line or "Traceback" in line] == []
    assert warning.startswith("warning: MLflow at postgresql://h/db: the Python module ")


def test_the_page_is_served_on_the_port_that_is_asked_for_without_noise(finished, browsed):
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "workflows", "ui", "--port", str(port)]
    with subprocess.Popen(command, cwd=finished[0], stdout=-1, stderr=subprocess.STDOUT, text=True) as server:
        try:
            deadline = time.monotonic() + 120
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            server.terminate()
        told = server.communicate()[0]
    assert f"http://127.0.0.1:{port}/#/runs/{parent(browsed[1]).info.run_id}" in told
    assert "Deprecat" not in told
    assert "GET /health" not in told


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as found:
            return found.status == 200
    except (urllib.error.URLError, OSError):
        return False
