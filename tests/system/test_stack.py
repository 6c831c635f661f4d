"""docker/compose.yaml's services, run natively with their own commands: PostgreSQL, MLflow, Ray with two workers."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter

import yaml

from tests.integration.workspace import METHODS, WORKFLOW, write
from tests.system.stack import PASSWORD, TOKEN


def ask(url, body=None, **headers):
    """Status and JSON (or text) of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def vocabsem(stack, folder, *arguments, wait=True, known=None):
    """The command as a driver in the head's container would run it; with `known`, with these settings instead."""
    environment = stack.environment(stack.service("ray-head")["environment"] if known is None else known)
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return finished(process) if wait else process


def finished(process):
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, output + errors
    return output, errors


def mlflow_runs(stack, experiment):
    """Every run of an experiment, from the server's REST interface."""
    base = f"http://127.0.0.1:{stack.ports['mlflow:5000']}/api/2.0/mlflow"
    status, found = ask(f"{base}/experiments/get-by-name?experiment_name={experiment}")
    if status == 404:
        return []
    assert status == 200, found
    number = found["experiment"]["experiment_id"]
    return ask(f"{base}/runs/search", {"experiment_ids": [number], "max_results": 1000})[1].get("runs", [])


def tags(run):
    return {entry["key"]: entry["value"] for entry in run["data"].get("tags", [])}


def keys(runs):
    return Counter(tags(run)["vocabsem.key"] for run in runs)


def test_the_cluster_has_the_workers_cores_and_asks_for_the_token(stack):
    url = f"http://127.0.0.1:{stack.ports['ray-head:8265']}/api/cluster_status"
    assert ask(url)[0] == 401
    assert ask(url, Authorization="Bearer wrong")[0] in (401, 403)
    deadline = time.monotonic() + 60
    while (offered := cores(url)) != 2:  # two workers of one core, none of the head's; told with some delay
        assert time.monotonic() < deadline, offered
        time.sleep(1)


def cores(url):
    status, found = ask(url, Authorization=f"Bearer {TOKEN}")
    assert status == 200
    return found["data"]["clusterStatus"]["loadMetricsReport"]["usage"].get("CPU", [0, 0])[1]


def test_mlflow_answers_to_the_name_it_has_in_the_network_and_to_no_other(stack):
    url = f"http://127.0.0.1:{stack.ports['mlflow:5000']}/api/2.0/mlflow/experiments/search"
    body = {"max_results": 1}
    assert ask(url, body, Host="mlflow:5000")[0] == 200
    assert ask(url, body, Host="localhost:5000")[0] == 200
    assert ask(url, body, Host="evil.example:5000")[0] == 403


def test_no_password_and_no_token_stands_in_a_command_line(stack):
    lines = stack.command_lines()
    assert "mlflow" in lines
    assert "--object-store-memory" in lines
    assert PASSWORD not in lines
    assert TOKEN not in lines


def test_a_workflow_runs_on_the_workers_and_stands_in_mlflow_once(stack, workspace):
    output, errors = vocabsem(stack, workspace, "run", "workflow.yaml", "--json")
    document = json.loads(output)
    assert document["steps"]["failed"] == 0
    assert document["steps"]["ran"] > 0
    assert "vocabsem sync" not in errors  # said where MLflow could not be written
    runs = mlflow_runs(stack, "vocabsem")
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    assert set(keys(runs).values()) == {1}
    assert len(runs) > len(METHODS)  # a run for each method, and their parent
    shown = {run["info"]["run_name"] for run in runs}
    assert all(any(method in name for name in shown) for method in METHODS), shown
    again, _ = vocabsem(stack, workspace, "run", "workflow.yaml", "--json")
    assert json.loads(again)["steps"]["ran"] == 0
    assert keys(mlflow_runs(stack, "vocabsem")) == keys(runs)


def test_a_workflow_is_sent_from_outside_and_stands_in_the_heads_mlflow(stack, workspace):
    """As docs/docker.md says: the job server's port, the token, the store as the services see it, and nothing else."""
    write(workspace, "sent.yaml", {**WORKFLOW, "methods": ["affinity", "centroid"], "experiment": "sent"})
    server = f"http://127.0.0.1:{stack.ports['ray-head:8265']}"
    known = {"RAY_ADDRESS": server, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    store = str(stack.folder / "store")
    output, errors = vocabsem(stack, workspace, "submit", "sent.yaml", "--store", store, "--follow", known=known)
    assert "succeeded" in errors
    assert "vocabsem sync" not in output
    assert {run["info"]["status"] for run in mlflow_runs(stack, "sent")} == {"FINISHED"}
    listed, _ = vocabsem(stack, workspace, "jobs", "--json", known=known)
    assert [(job["status"], job["store"]) for job in json.loads(listed)["jobs"]] == [("SUCCEEDED", store)]


def test_mlflow_ends_in_the_middle_of_a_run_and_is_filled_in_later(stack, workspace):
    address = yaml.safe_load((workspace / "workflow.yaml").read_text())["execution"]
    document = {**WORKFLOW, "seeds": [0, 1, 2, 3], "experiment": "interrupted", "execution": address}
    process = vocabsem(stack, workspace, "run", write(workspace, "more.yaml", document), wait=False)
    deadline = time.monotonic() + 300
    while not any(run["info"]["status"] == "RUNNING" for run in mlflow_runs(stack, "interrupted")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    stack.stop("mlflow")
    output, errors = finished(process)
    assert "calibration" in output
    assert "vocabsem sync" in errors
    stack.start("mlflow")
    begun = mlflow_runs(stack, "interrupted")
    assert [run["info"]["status"] for run in begun] == ["RUNNING"]  # the parent alone: kept by the database
    vocabsem(stack, workspace, "sync")
    filled = mlflow_runs(stack, "interrupted")
    assert {run["info"]["status"] for run in filled} == {"FINISHED"}
    assert set(keys(filled).values()) == {1}
    assert keys(begun).items() <= keys(filled).items()
    vocabsem(stack, workspace, "sync")
    assert keys(mlflow_runs(stack, "interrupted")) == keys(filled)


def test_the_browser_shows_the_runs(stack, workspace, chromium, tmp_path):
    (parent,) = [run for run in mlflow_runs(stack, "interrupted") if "mlflow.parentRunId" not in tags(run)]
    number = parent["info"]["experiment_id"]
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    still = ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    url = f"http://127.0.0.1:{stack.ports['mlflow:5000']}/#/experiments/{number}/runs"
    seen = ""
    for _ in range(5):  # the page loads in parts; a busy machine needs longer than the budget of its clock
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", *quiet, *still, "--virtual-time-budget=30000", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=180,
        )
        seen = done.stdout
        if parent["info"]["run_name"] in seen:
            return
    raise AssertionError(f"{parent['info']['run_name']!r} is not in the page:\n{seen[:2000]}")
