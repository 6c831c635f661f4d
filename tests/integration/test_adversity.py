"""What is not the user's files' fault: a full disk, a cluster that does not answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.errors import StoreError
from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from orchestration.store.files import TEMPORARY
from tests.orchestration.steps import number, squares, total

REPOSITORY = Path(__file__).parents[2]


def run(store, *targets):
    quiet = lambda *_: None  # noqa: E731
    plan = make_plan(targets, store)
    outcomes = run_plan(plan, lambda: InlineEngine(store, quiet), quiet)
    return {entry.step.label: outcomes[entry.step.key] for entry in plan}


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
from pathlib import Path
from tests.integration.test_adversity import number, open_store, run, total
for label, outcome in run(open_store(Path(sys.argv[1])), total(number(5000)), total(number(3), factor=2.0)).items():
    print(label, outcome.state, outcome.error, sep=": ")
"""


@pytest.fixture
def after_a_full_disk(tmp_path):
    """A store, and what was told, after a run in which no file could grow past 8 KiB.

    In a process of its own: a write fails half-way, and the limit must not meet what else this process writes.
    """
    store = open_store(tmp_path / "store")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-B", "-c", FULL_DISK, str(store.root)]  # -B: a module's bytecode would be cut as well
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return store, dict(line.split(": ", 1) for line in done.stdout.splitlines())


def test_a_full_disk_is_a_clear_error_and_what_is_committed_stays(after_a_full_disk):
    store, told = after_a_full_disk
    assert told["number 5000"].startswith("failed: ")
    assert "cannot be written" in told["number 5000"]
    assert "make room and run again" in told["number 5000"]
    assert told["total x 2.0"].startswith("ran")
    assert not list(store.root.glob(f"*/*/{TEMPORARY}*"))
    assert all(not list(artifact.damages(every_byte=True)) for artifact in store.artifacts())


def test_after_room_is_made_the_same_run_finishes(after_a_full_disk):
    store, _ = after_a_full_disk
    assert {outcome.state for outcome in run(store, total(number(5000))).values()} == {"ran"}
    assert store.find(total(number(5000))).json("total.json") == sum(range(5000))


def test_a_store_that_vanishes_under_a_run_is_an_error_not_a_traceback(tmp_path):
    store = open_store(tmp_path / "store")
    (store.root / "squares").write_text("a file where the folder should be")
    outcome = run(store, squares(2))["squares 2"]
    assert (outcome.state, outcome.exit_code) == ("failed", StoreError.exit_code)
    assert "cannot be written" in outcome.error


@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://127.0.0.1:9"])
def test_a_cluster_that_does_not_answer_says_what_to_do(address, tmp_path):
    """In a process of its own, since this one may be connected to a cluster."""
    program = (
        "import sys; from pathlib import Path; from orchestration.store.artifacts import open_store\n"
        "from orchestration.ray_backend.engine import RayEngine; from orchestration.errors import ClusterError\n"
        "try: RayEngine(open_store(Path(sys.argv[1])), lambda *_: None, sys.argv[2])\n"
        "except ClusterError as error: print(error.exit_code, error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", program, str(tmp_path / "store"), address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(f"2 no Ray cluster answers at '{address}'"), done.stderr
    assert "leave the address out to run on this machine" in done.stdout


@pytest.mark.parametrize("written", [None, ""])
def test_a_cluster_whose_token_cannot_be_read_says_where_to_get_it(written, tmp_path):
    """In a process of its own, since Ray reads its settings once."""
    program = (
        "from orchestration.ray_backend import engine; from orchestration.errors import ClusterError\n"
        "engine._check_reachable = lambda address: None\n"
        "try: engine._join('127.0.0.1:6379')\n"
        "except ClusterError as error: print(error.exit_code, error)"
    )
    if written is not None:
        (tmp_path / "token").write_text(written)
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"), "PYTHONPATH": str(REPOSITORY)}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"} | settings
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.startswith(f"2 127.0.0.1:6379: the cluster requires a token, and {tmp_path}")
    assert "`ray get-auth-token` prints it" in done.stdout
    assert "Traceback" not in done.stderr
