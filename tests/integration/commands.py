"""The command line in a process of its own that finds its imports done.

A command on a test's few rows imports torch, transformers and MLflow for longer than it computes. Here one process
imports them once and forks itself for each command, which has its own arguments, folder, environment, output, signals
and exit status. So is the process that Ray's workers are forked from. Tests of what is imported, and of starts, start
Python instead.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from orchestration.ray_backend import fork_server

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.integration.imports"])


class Command:
    """`python -m workflows` with these arguments, in this folder and environment, while it runs."""

    def __init__(self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._place = TemporaryDirectory()
        self._told = [Path(self._place.name) / name for name in ("stdout", "stderr")]
        for path in self._told:
            path.touch()
        self._process = _forks.Process(target=_command, args=(folder, arguments, dict(environment), self._told))
        self._process.start()
        self._arguments, self.pid = arguments, self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self._told[1].read_text()

    def wait_for(self, there: Callable[[], object], seconds: float = 400) -> None:
        """Until something is there, while it runs."""
        until = time.monotonic() + seconds
        while not there():
            assert self.runs, f"it ended before: {self.errors}"
            assert time.monotonic() < until, self.errors
            time.sleep(0.02)

    def send(self, number: int) -> None:
        """A signal."""
        os.kill(self.pid, number)

    def end(self) -> subprocess.CompletedProcess[str]:
        """What it came to, once it has ended; called once."""
        self._process.join()
        with self._place:
            return subprocess.CompletedProcess(
                self._arguments, self._process.exitcode, *(path.read_text() for path in self._told)
            )


def call(folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What the command came to."""
    return Command(folder, arguments, environment).end()


def _command(folder: Path, arguments: Sequence[str], environment: dict[str, str], told: list[Path]) -> None:
    for number, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests' own process was told of it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if "inline" not in arguments:
        fork_server._started = _WorkersAhead().start
    sys.argv = ["vocabsem", *arguments]
    try:
        runpy.run_module("workflows", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a process without them; Ray ends its own by them


class _WorkersAhead:
    """The process that Ray's workers are forked from, itself a fork of the command before that has a thread."""

    def __init__(self) -> None:
        self._to_it, asked = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._to_it.close()
            self._serve(asked)
        asked.close()

    def start(self, folder: str, listener: int, driver: int, preload: Sequence[str]) -> "_WorkersAhead":
        socket.send_fds(self._to_it, [folder.encode()], [listener, driver])
        return self

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> None:
        os.waitpid(self.pid, 0)

    def _serve(self, asked: socket.socket) -> NoReturn:
        status = 1
        try:
            folder, files, _, _ = socket.recv_fds(asked, 4096, 2)
            if files:
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDWR)
                for number in range(3):
                    os.dup2(nothing, number)
                os.chdir(fork_server._root())
                fork_server.main(folder.decode(), *map(str, files))
            status = 0
        except SystemExit as ended:  # of a worker, as Ray ends it
            status = ended.code if isinstance(ended.code, int) else 1
        finally:
            atexit._run_exitfuncs()
            os._exit(status)
