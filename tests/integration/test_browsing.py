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

from orchestration.tracking.mlflow_client import default_uri
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
    name = "test-predictions-reference-small.json"
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
    names = ["results.json", "test-predictions-reference-small.json"]
    assert sorted(entry["path"] for entry in told) == names
    assert {entry["type"] for entry in told} == {"table"}


def test_runs_name_the_data_they_read(browsed):
    _, runs = browsed
    named = {run.info.run_name: list(run.inputs.dataset_inputs) for run in runs}
    contexts = {
        name: {(one.dataset.name, tag.value) for one in inputs for tag in one.tags} for name, inputs in named.items()
    }
    assert contexts["linear-probe small reference"] == {("small", "train"), ("small", "test")}
    assert contexts["zero-shot small reference"] == {("small", "test")}  # it reads no training rows
    assert contexts[parent(runs).info.run_name] == {("small", "train"), ("small", "test")}


def test_the_page_that_is_named_lists_fits_by_score_with_what_they_cost(browsed):
    client, runs = browsed
    info = parent(runs).info
    view = json.loads(client.get_experiment(info.experiment_id).tags[f"mlflow.sharedViewState.{info.run_id}"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`score`", False)
    assert view["selectedColumns"] == [
        *("params.`model`", "params.`task`", "params.`method`"),
        *("metrics.`score`", "metrics.`seconds`"),
    ]
    listed = client.search_runs([info.experiment_id], view["searchFilter"], order_by=["metrics.score DESC"])
    assert len(listed) == len(runs) - 1
    scores = [run.data.metrics["score"] for run in listed]
    assert scores == sorted(scores, reverse=True)
    assert all(run.data.metrics["seconds"] > 0 for run in listed)
    assert set().union(*(run.data.params for run in listed)) <= {"model", "task", "method", "seed", "settings"}


def test_a_comparison_says_which_method_is_best_and_what_it_took(finished, browsed):
    run, results = parent(browsed[1]), finished[1]["results"]
    best = max(results, key=lambda result: result["mean"])
    assert (run.info.run_name, run.data.tags["best_method"]) == ("small with reference", best["method"])
    assert set(run.data.metrics) == {"best_score", "seconds", "trained_weights", "calibration_error"}
    assert run.data.metrics["best_score"] == best["mean"]


def test_a_fit_began_and_ended_when_it_was_made_and_the_report_is_the_first_artifact(finished, browsed):
    client, runs = browsed
    for artifact in (finished[0] / ".vocabsem" / "store" / "fit").iterdir():
        made = json.loads((artifact / "provenance.json").read_text())
        spans = [run.info.end_time - run.info.start_time for run in runs]
        assert round(made["seconds"] * 1000) in spans
    assert client.list_artifacts(parent(runs).info.run_id)[0].path == "report.html"


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
            deadline = time.monotonic() + 300
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        finally:
            server.terminate()
        told = server.communicate()[0]
    shown = parent(browsed[1]).info
    page = f"#/experiments/{shown.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={shown.run_id}"
    assert f"http://127.0.0.1:{port}/{page}" in told
    assert "Deprecat" not in told
    assert "GET /health" not in told


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as found:
            return found.status == 200
    except (urllib.error.URLError, OSError):
        return False
