"""A real cluster for tests: a head with a job server and a token, and a second node, each a process tree of its own."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.integration.workspace import REPOSITORY

BIN = Path(sys.executable).parent
START_SECONDS = 120


@dataclass(frozen=True)
class TwoNodes:
    """A head with two cores; a node with one core and two GPUs in name.

    Attributes:
        jobs, address: of the job server, and for drivers on this machine.
        environment: what a client needs.
        hidden: a folder that the second node does not see as the head does; None where this machine cannot hide one.
        node: the second node's process.
    """

    jobs: str
    address: str
    environment: dict[str, str]
    hidden: Path | None
    node: psutil.Process

    @contextmanager
    def frozen_node(self) -> Iterator[None]:
        """The second node's processes stand still; one that is ended as the others wake is gone by its turn."""
        processes = [self.node, *self.node.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


@contextmanager
def two_nodes(folder: Path, environment: dict[str, str] | None = None) -> Iterator[TwoNodes]:
    """Start them, with more in their environment, and end them by their processes."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    client = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "OMP_NUM_THREADS": "1"}
    client.pop("PYTHONPATH", None)  # jobs bring their own code
    server = {**client, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **(environment or {})}
    gcs, jobs, *agents = free_ports(4)
    temporary = [Path(f"/tmp/vs{os.getpid()}{name}") for name in "ab"]  # sockets within allow no longer paths
    hidden = folder / "hidden" if can_hide(folder) else None
    start = [str(BIN / "ray"), "start", "--block", "--object-store-memory=80000000", "--disable-usage-stats"]
    head = [
        "--head",
        f"--dashboard-agent-listen-port={agents[0]}",
        f"--port={gcs}",
        f"--dashboard-port={jobs}",
        "--num-cpus=2",
        "--num-gpus=0",
    ]
    second = [
        f"--dashboard-agent-listen-port={agents[1]}",
        f"--address=127.0.0.1:{gcs}",
        "--num-cpus=1",
        "--num-gpus=2",
    ]
    with open(folder / "ray.log", "w") as log, started([*start, *head, f"--temp-dir={temporary[0]}"], server, log):
        wait_for(lambda: listens(jobs) and listens(agents[0]), "the job server", folder / "ray.log")
        command = [*start, *second, f"--temp-dir={temporary[1]}"]
        with started(hiding(command, hidden), server, log) as node:
            found = TwoNodes(f"http://127.0.0.1:{jobs}", f"127.0.0.1:{gcs}", client, hidden, psutil.Process(node.pid))
            wait_for(lambda: count_nodes(found) == 2, "the second node", folder / "ray.log")
            yield found
    for place in temporary:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def started(command: list[str], environment: dict[str, str], log) -> Iterator[subprocess.Popen]:
    """A process and all it starts, ended together."""
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(tree, timeout=15)
        for left in alive:
            left.kill()
        process.wait()


def can_hide(folder: Path) -> bool:
    """Whether a process may be given another view of a folder here: needs root or user namespaces."""
    (folder / "hidden").mkdir()
    return subprocess.run(hiding(["true"], folder / "hidden"), capture_output=True).returncode == 0


def hiding(command: list[str], folder: Path | None) -> list[str]:
    """A command that runs with an empty folder of its own in a folder's place."""
    if folder is None:
        return command
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(folder), *command]


def free_ports(count: int) -> list[int]:
    """All different, since all are taken before one is given back."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def count_nodes(cluster: TwoNodes) -> int:
    """Nodes that are alive, as a driver sees them."""
    return int(driver(cluster, "print(sum(node['Alive'] for node in ray.nodes()))").splitlines()[-1])


def driver(cluster: TwoNodes, program: str, *arguments: str) -> str:
    """What a program prints that is connected to the cluster. Its workers import this repository."""
    head = (
        "import os, sys, json, logging, ray\n"
        f"ray.init(address={cluster.address!r}, log_to_driver=False, logging_level=logging.ERROR,\n"
        f"         runtime_env={{'env_vars': {{'PYTHONPATH': {str(REPOSITORY)!r}}}}})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + program, *arguments],
        env={**cluster.environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(holds, what: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not holds():
        assert time.monotonic() < until, f"{what} did not come up:\n{log.read_text()}"
        time.sleep(0.5)
