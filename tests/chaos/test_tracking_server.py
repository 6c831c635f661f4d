"""An MLflow server that is killed in the middle of a run costs nothing: the run ends well, `sync` fills it in later."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest

from orchestration.store.artifacts import open_store
from tests import tiny
from tests.chaos.conftest import FULL
from tests.chaos.pieces import REPOSITORY, data_files
from tests.integration.workspace import cli, write

WORKFLOW = {
    "workflow": "compare",
    "models": ["model"],
    "tasks": ["starter-topics"],
    "methods": ["zero-shot", "affinity", "calibration", "knn"],
    "limit": {"train": 60, "test": 30},
    "seeds": [0],
    "search": {"trials": 4},
    "execution": {"executor": "inline"},
}


class Server:
    """`mlflow server` on a free port, its files in a folder; started again on the same port."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.uri, self._folder, self.process = f"http://127.0.0.1:{self._port}", folder, None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        command += ["--artifacts-destination", str(self._folder / "server")]
        self.process = subprocess.Popen(
            command, cwd=self._folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 300
        while True:
            try:
                with urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the MLflow server does not start"
                time.sleep(0.3)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        made.kill()


def scores(document):
    """What must be the same; costs are measured anew."""
    return [[one[name] for name in ("task", "method", "mean", "low", "high")] for one in document["results"]]


@pytest.mark.skipif(not FULL, reason="each takes half a minute: run by `make chaos`; test-system restarts a server too")
@pytest.mark.parametrize("seed", range(4))
def test_a_tracking_server_killed_during_a_run(seed, server, tmp_path, chronicle):
    tiny.save(tmp_path / "model", tiny.gpt2())
    workflow = write(tmp_path, "workflow.yaml", WORKFLOW)
    alone = json.loads(cli(tmp_path, "run", workflow, "--store", str(tmp_path / "alone"), "--json").stdout)
    command = [sys.executable, "-m", "workflows", "run", workflow, "--store", "store", "--mlflow", server.uri, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    driver = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    draw, store = random.Random(seed), tmp_path / "store"
    wanted = draw.randrange(0, 12)  # artifacts that are there when the server dies
    while driver.poll() is None and len(list(store.glob("*/*/COMMITTED"))) < wanted:
        time.sleep(0.01)
    kills = int(driver.poll() is None)
    server.kill()
    out, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, errors
    assert scores(json.loads(out)) == scores(alone)
    assert data_files(store) == data_files(tmp_path / "alone")
    if kills:
        assert "vocabsem sync" in errors
    server.start()
    filled = json.loads(cli(tmp_path, "sync", "--store", "store", "--mlflow", server.uri, "--json").stdout)
    assert len(filled["runs"]) == 1
    again = json.loads(cli(tmp_path, "run", workflow, "--store", "store", "--mlflow", server.uri, "--json").stdout)
    assert again["mlflow_run_id"]
    assert (again["steps"]["ran"], len(open_store(store).artifacts())) == (0, alone["steps"]["ran"])
    chronicle("MLflow server killed during a run", kills, 0)
