"""Workers are forks of a process with all imports, and are started as usual where there is none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestration.ray_backend import fork_server
from orchestration.ray_backend.fork_server import WORKER
from orchestration.ray_backend.forked_worker import ADDRESS, USUAL_WORKER

SCRIPT = """
import json, os, sys
seen = {"arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ), "path": sys.path[0],
        "imported": "colorsys" in sys.modules, "parent": os.getppid(), "leads": os.getpgid(0) == os.getpid()}
print(json.dumps(seen), flush=True)
"""


@pytest.fixture
def script(tmp_path):
    """In place of Ray's own: it prints what it finds."""
    file = tmp_path / "usual.py"
    file.write_text(SCRIPT)
    return file


def worker(variables, script, folder, **more):
    """What a worker finds that is started as Ray starts it, with these variables."""
    environment = {"PATH": os.environ["PATH"], **variables, USUAL_WORKER: str(script), **more}
    with (folder / "out").open("w+") as out:
        subprocess.run([sys.executable, WORKER, "--one", "2"], env=environment, cwd=folder, stdout=out, check=True)
        until = time.monotonic() + 60
        while not (told := (folder / "out").read_text()).endswith("\n"):
            assert time.monotonic() < until
            time.sleep(0.02)
    return json.loads(told), environment


def server_of(variables):
    """The process, among those of other tests."""
    folder = str(Path(variables[ADDRESS]).parent)
    (server,) = (child for child in psutil.Process().children() if folder in child.cmdline())
    return server


def test_a_worker_has_all_imports_and_its_own_arguments_folder_and_environment(script, tmp_path):
    with fork_server.fork_server(("colorsys",)) as variables:
        server = server_of(variables)
        folder = Path(variables[ADDRESS]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        for number in ("1", "2"):
            seen, environment = worker(variables, script, tmp_path, NUMBER=number, LONG="x" * 100_000)
            assert seen.pop("environment").items() >= environment.items()
            assert seen == {
                "arguments": [str(script), "--one", "2"],
                "folder": str(tmp_path),
                "path": str(tmp_path),
                "imported": True,
                "parent": server.pid,
                "leads": True,
            }
    assert not server.is_running()
    assert not folder.exists()


def test_a_module_that_is_not_there_is_left_to_the_worker_that_needs_it(script, tmp_path):
    with fork_server.fork_server(("no.such.module", "colorsys")) as variables:
        assert worker(variables, script, tmp_path)[0]["imported"]


def test_without_its_server_a_worker_is_started_as_usual(script, tmp_path):
    with fork_server.fork_server(("colorsys",)) as variables:
        server = server_of(variables)
        server.kill()
        server.wait()
        seen, _ = worker(variables, script, tmp_path)
    assert (seen["arguments"], seen["imported"]) == ([str(script), "--one", "2"], False)
    assert seen["parent"] == os.getpid()


def test_a_worker_that_is_frozen_is_ended_with_it(script, tmp_path):
    script.write_text(SCRIPT + "import signal; os.kill(os.getpid(), signal.SIGSTOP)")
    with fork_server.fork_server(("colorsys",)) as variables:
        server = server_of(variables)
        worker(variables, script, tmp_path)
        (frozen,) = server.children()
        until = time.monotonic() + 60
        while frozen.status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < until
            time.sleep(0.02)
    assert not frozen.is_running()


def test_it_ends_with_a_driver_that_is_killed(tmp_path):
    program = (
        "import os, time\n"
        "from orchestration.ray_backend.fork_server import fork_server\n"
        "with fork_server(('colorsys',)) as variables: print(*variables.values(), flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as driver:
        folder = Path(driver.stdout.readline().split()[0]).parent
        children = psutil.Process(driver.pid).children()
        driver.send_signal(signal.SIGKILL)
    assert len(children) == 1
    assert psutil.wait_procs(children, timeout=30)[1] == []
    assert not folder.exists()


def test_where_a_gpu_is_or_nothing_to_import_workers_are_started_as_usual(monkeypatch, tmp_path):
    with fork_server.fork_server(()) as variables:
        assert variables == {}
    monkeypatch.setattr(fork_server, "_GPU", tmp_path)
    with fork_server.fork_server(("colorsys",)) as variables:
        assert variables == {}
