"""The command line in a process of its own that finds its imports done.

A command on a test's few rows imports torch, transformers and MLflow for longer than it computes. Here one process
imports them once and forks itself for each command, which has its own arguments, folder, environment, output, signals
and exit status. Tests of what is imported, and of starts, start Python instead.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.integration.imports"])


def call(folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What `python -m workflows` came to with these arguments, in this folder and environment."""
    with TemporaryDirectory() as place:
        told = [Path(place) / name for name in ("stdout", "stderr")]
        process = _forks.Process(target=_command, args=(folder, arguments, dict(environment), told))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in told))


def _command(folder: Path, arguments: Sequence[str], environment: dict[str, str], told: list[Path]) -> None:
    for number, path in enumerate(told, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["vocabsem", *arguments]
    try:
        runpy.run_module("workflows", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a process without them; Ray ends its own by them
