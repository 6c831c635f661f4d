"""The services of docker/compose.yaml as processes of this machine: the same commands, other ports and folders."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docker.compose import load

REPOSITORY = Path(__file__).parents[2]
TOKEN = "the-token-of-a-test-0123456789abcdef"
PASSWORD = "pass'word with @ / : % signs"  # none of them may need escaping
_START_SECONDS = 240  # until a service is healthy, on a busy machine
_STOP_SECONDS = 40  # Ray drains a node for 30 before it ends it
_ORDER = ("postgres", "mlflow", "ray-head", "worker")
_HARMLESS = ("PATH", "HOME", "LANG", "TMPDIR")  # of this process's environment: a container has no more


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian keeps it off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    program = str(found[-1]) if found else shutil.which("postgres")
    return Path(program).parent if program else None


@dataclass
class Stack:
    """Running services.

    Attributes:
        folder: everything they write; short, since it holds sockets.
        ports: what compose calls host:port -> the port here.
        running: name -> processes.
    """

    folder: Path
    ports: dict[str, int]
    workers: int
    running: dict[str, list[subprocess.Popen]] = field(default_factory=dict)

    def service(self, name: str, number: int = 0) -> dict[str, Any]:
        """A service as the file has it, with hosts, ports and folders of this machine put in."""
        environment = {"RAY_AUTH_TOKEN": TOKEN, "POSTGRES_PASSWORD": PASSWORD, "WORKER_CPUS": "1"}
        service = load(environment)["services"][name]
        agent = self.ports["ray-head:52365"] + number
        changes = {
            "postgres:5432": f"127.0.0.1:{self.ports['postgres:5432']}",
            "mlflow:5000": f"127.0.0.1:{self.ports['mlflow:5000']}",
            "ray-head:6379": f"127.0.0.1:{self.ports['ray-head:6379']}",
            "127.0.0.1:5000": f"127.0.0.1:{self.ports['mlflow:5000']}",
            "127.0.0.1:8265": f"127.0.0.1:{self.ports['ray-head:8265']}",
            "127.0.0.1:52365": f"127.0.0.1:{agent}",
            "--port=5000": f"--port={self.ports['mlflow:5000']}",
            "--port=6379": f"--port={self.ports['ray-head:6379']}",
            "--dashboard-port=8265": f"--dashboard-port={self.ports['ray-head:8265']}",
            "--dashboard-agent-listen-port=52365": f"--dashboard-agent-listen-port={agent}",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "--dashboard-host=0.0.0.0": "--dashboard-host=127.0.0.1",
            "=/artifacts": f"={self.folder / 'artifacts'}",
        }
        for part in ("command", "environment"):
            service[part] = _changed(service[part], changes)
        service["healthcheck"]["test"] = _changed(service["healthcheck"]["test"], changes)
        return service

    def start(self, name: str, number: int = 0) -> None:
        """Start a service by its own command, and wait until its own health check says yes."""
        service = self.service(name, number)
        extra, user = self._surroundings(name, number)
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 the child keeps it
        process = subprocess.Popen(
            [*service["command"], *extra],
            env=self.environment(service["environment"]),
            cwd=self.folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user,
        )
        log.close()
        self.running.setdefault(name, []).append(process)
        self._await_health(name, process, service)

    def environment(self, given: Mapping[str, Any]) -> dict[str, str]:
        """What a container would see: the image's settings and the service's, nothing of this shell's."""
        programs = [str(Path(sys.executable).parent), str(postgres_programs())]
        kept = {name: os.environ[name] for name in _HARMLESS if name in os.environ}
        path = os.pathsep.join([*programs, kept.get("PATH", "")])
        image = {"VOCABSEM_STORE": str(self.folder / "store"), "RAY_USAGE_STATS_ENABLED": "0"}
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
        return {**kept, **image, **quiet, **{name: str(value) for name, value in given.items()}, "PATH": path}

    def _surroundings(self, name: str, number: int) -> tuple[list[str], str | None]:
        """What the command needs beside others on one machine; and PostgreSQL refuses to run as root.

        Nodes of Ray that share a folder would remove each other's copies of a job's files.
        """
        if name == "postgres":
            port = self.ports["postgres:5432"]
            place = ["-D", str(self.folder / "database"), "-k", str(self.folder / "database")]
            return [*place, "-p", str(port), "-h", "127.0.0.1"], _database_user()
        if name == "ray-head":
            ports = [f"--ray-client-server-port={self.ports['ray-head:10001']}"]
            agent = [f"--dashboard-agent-listen-port={self.ports['ray-head:52365'] + 9}"]
            return [*ports, *agent, f"--temp-dir={self.folder / 'ray'}", "--node-ip-address=127.0.0.1"], None
        own = ["--node-ip-address=127.0.0.1", f"--temp-dir={self.folder / f'r{number}'}"]
        return (own if name == "worker" else []), None

    def _await_health(self, name: str, process: subprocess.Popen, service: Mapping[str, Any]) -> None:
        test = list(service["healthcheck"]["test"][1:])
        if name == "postgres":
            test.append(f"--port={self.ports['postgres:5432']}")
        environment = self.environment(service["environment"])
        deadline = time.monotonic() + _START_SECONDS
        while True:
            done = subprocess.run(test, env=environment, capture_output=True, text=True, cwd=self.folder)
            if done.returncode == 0:
                return
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"{name} is not healthy ({done.stderr.strip()[-300:]}); its log ends:\n{log}")
            time.sleep(1)

    def stop(self, name: str) -> None:
        """End a service's processes as an engine does: the main ones politely, then whatever is left."""
        processes = self.running.pop(name, [])
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)

    def command_lines(self) -> str:
        """Of every process that descends from these services."""
        found = []
        for processes in self.running.values():
            for process in processes:
                for place in Path("/proc").glob("[0-9]*"):
                    try:
                        if os.getpgid(int(place.name)) == process.pid:
                            found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
                    except (ProcessLookupError, FileNotFoundError):
                        continue
        return "\n".join(found)


def make_database(stack: Stack) -> None:
    """What the image's entry point does with its first start: a cluster with a user, a password and a database."""
    folder, programs = stack.folder / "database", postgres_programs()
    assert programs is not None
    folder.mkdir()
    secret = stack.folder / "password"
    secret.write_text(PASSWORD)
    user = _database_user()
    if user is not None:
        for path in (folder, secret):
            shutil.chown(path, user)
    run = {"check": True, "user": user, "capture_output": True, "cwd": folder}
    subprocess.run(
        [programs / "initdb", "-D", folder, "-U", "mlflow", "--auth=scram-sha-256", f"--pwfile={secret}"], **run
    )
    secret.unlink()
    single = [programs / "postgres", "--single", "-D", folder, "postgres"]
    subprocess.run(single, input=b"CREATE DATABASE mlflow;\n", **run)


@contextmanager
def running_stack(workers: int) -> Iterator[Stack]:
    """All services, started in the order that compose.yaml gives; ended afterwards, whatever happened."""
    folder = Path(tempfile.mkdtemp(prefix="vs-"))
    folder.chmod(0o755)  # PostgreSQL's user must pass
    names = ("postgres:5432", "mlflow:5000", "ray-head:6379", "ray-head:8265", "ray-head:10001", "ray-head:52365")
    stack = Stack(folder, dict(zip(names, _free_ports(len(names)), strict=True)), workers)
    try:
        make_database(stack)
        for name in _ORDER:
            for number in range(workers if name == "worker" else 1):
                stack.start(name, number)
        yield stack
    finally:
        for name in reversed(_ORDER):
            stack.stop(name)
        shutil.rmtree(folder, ignore_errors=True)


def _changed(value: Any, changes: Mapping[str, str]) -> Any:
    """Text with the first change that fits put in: a port once changed is not to be changed again."""
    if isinstance(value, dict):
        return {name: _changed(entry, changes) for name, entry in value.items()}
    if isinstance(value, list):
        return [_changed(entry, changes) for entry in value]
    for old, new in changes.items():
        if isinstance(value, str) and old in value and not value.startswith("--allowed-hosts"):
            return value.replace(old, new)
    return value


def _database_user() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _free_ports(count: int) -> Sequence[int]:
    """Ports that are free now, far enough apart for a handful of neighbours each."""
    found: list[int] = []
    for port in range(21_000 + os.getpid() % 5_000, 32_000, 20):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} free ports between 21000 and 32000")
