"""Runs that a signal ends: they say what is kept and how to go on, leave nothing behind, and go on from there."""

import signal
import sqlite3

import psutil
import pytest

from orchestration.runs.record import runs
from orchestration.store.artifacts import existing_store
from tests.integration.test_cluster import SMALL
from tests.integration.workspace import cli_begun, cli_json, make_workspace, write
from workflows.report.contents import read_contents

KEPT = "score reference-1m small affinity"  # the last step before all wait for `patient`
PATIENT = """
import time
from pathlib import Path
from workflows.methods.base import Method

class Patient(Method):
    name, needs = "patient", frozenset()

    def fit(self, settings, materials, seed):
        Path("{folder}/begun").touch()
        while not Path("{folder}/go").exists():
            time.sleep(0.2)
        return {{}}

    def predict(self, settings, fitted, states, materials):
        return states[:, :2]
"""


@pytest.fixture
def folder(tmp_path):
    """With a workflow whose last step waits for a file."""
    folder = make_workspace(tmp_path)
    (folder / "patient.py").write_text(PATIENT.format(folder=folder))
    write(folder, "patient.yaml", {**SMALL, "methods": ["affinity", "patient.py"]})
    return folder


def mlflow_states(folder):
    with sqlite3.connect(folder / ".vocabsem" / "mlflow.db") as database:
        return {status for (status,) in database.execute("SELECT status FROM runs")}


@pytest.mark.parametrize(
    ("executor", "number", "status"),
    [("inline", signal.SIGINT, 130), ("ray", signal.SIGTERM, 143)],
)
def test_it_says_what_is_kept_and_how_to_go_on_and_goes_on_there(folder, executor, number, status):
    arguments = ["--executor", executor, "--json"]
    command = cli_begun(folder, "run", "patient.yaml", *arguments)
    command.wait_for(lambda: KEPT in command.errors and (folder / "begun").exists())
    workers = psutil.Process(command.pid).children(recursive=True)
    command.send(number)
    done = command.end()
    assert (done.returncode, done.stdout) == (status, "")
    assert bool(workers) == (executor == "ray")
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    lines = done.stderr.splitlines()
    assert sum(line.startswith("stopping; ") for line in lines) == 1
    kept, in_hand, again = lines[-3:]
    done, total = (int(word) for word in kept.split() if word.isdigit())
    assert kept == f"interrupted: {done} of {total} steps are done and kept; in progress:"
    assert in_hand == "  fit reference-1m small patient seed 0: will start again"
    assert again == f"resume with:  vocabsem run patient.yaml {' '.join(arguments)}"
    assert mlflow_states(folder) == {"KILLED"}

    (folder / "go").touch()
    document = cli_json(folder, "run", "patient.yaml", "--executor", "inline")
    assert (document["steps"]["ran"], document["steps"]["cached"]) == (total - done, done)
    assert mlflow_states(folder) == {"FINISHED"}
    store = existing_store(str(folder / ".vocabsem" / "store"))
    (record,) = runs(store)
    counts = read_contents(record, store).steps.values()
    assert sum(ran for _, ran in counts) == document["steps"]["ran"]
    assert sum(count - ran for count, ran in counts) == document["steps"]["cached"]
