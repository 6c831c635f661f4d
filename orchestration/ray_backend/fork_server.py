"""A process that imports the workers' libraries once, and forks itself for each worker that Ray starts on this machine.

A worker that imports large libraries is busy with that for ten seconds of a core; one that is forked begins at once,
and shares that memory. Ray's own modules are not imported beforehand: they read variables that Ray sets for each
worker.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from select import select
from tempfile import mkdtemp

from orchestration.ray_backend.forked_worker import ADDRESS, FORKED, USUAL_WORKER

WORKER = str(Path(__file__).with_name("forked_worker.py"))  # what Ray runs in place of its own script
_GPU = Path("/dev/nvidiactl")
_BYTES = 1 << 16  # read at a time
_GRACE_SECONDS = 2.0  # for workers to end by themselves


@contextmanager
def fork_server(preload: Sequence[str], place: str | None = None) -> Iterator[dict[str, str]]:
    """Run it; what `WORKER` needs in its environment, or nothing where workers are started as usual.

    That is on a machine with an NVIDIA GPU, since CUDA does not survive a fork, and where there is nothing to import.

    Args:
        preload: modules that workers import.
        place: the folder for its socket; None: the one for temporary files.

    Raises OSError where that cannot be written to.
    """
    if not preload or sys.platform != "linux" or _GPU.exists():
        yield {}
        return
    # For this user alone: whoever can write to the socket starts processes.
    folder = mkdtemp(prefix="vocabsem-", dir=place)
    reading, writing = os.pipe()  # its end tells the server of a driver that was killed
    address = f"{folder}/socket"
    try:
        with closing(_bound(address)) as listener:
            server = _started(folder, listener.fileno(), reading, preload)
        try:
            yield {ADDRESS: address, USUAL_WORKER: str(_ray() / "_private/workers/default_worker.py")}
        finally:
            server.terminate()
            server.wait()
    finally:
        os.close(reading)
        os.close(writing)
        shutil.rmtree(folder, ignore_errors=True)  # the server may have done it


def _started(folder: str, listener: int, driver: int, preload: Sequence[str]) -> subprocess.Popen[bytes]:
    # What imports print is no part of a run's output; a worker that cannot be forked is started as usual.
    return subprocess.Popen(
        [sys.executable, "-m", __name__, folder, str(listener), str(driver), *preload],
        cwd=_root(),
        pass_fds=(listener, driver),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _ray() -> Path:
    """Its folder, without importing it."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _root() -> Path:
    """The folder of our packages."""
    return Path(__file__).parents[2]


def _bound(address: str) -> socket.socket:
    """A socket that takes requests already, before the server is there to read them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(128)
    return listener


def _serve(listener: socket.socket, driver: int) -> bool:
    """Fork for each request until the driver has ended; whether this process is a fork, which has to be a worker."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no worker is waited for
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    while True:
        ready, _, _ = select([listener.fileno(), driver], [], [])
        if driver in ready:
            return False
        request, _ = listener.accept()
        with request:
            if os.fork() == 0:
                listener.close()
                os.close(driver)
                _become(request)
                return True


def _become(request: socket.socket) -> None:
    """Take over the arguments, environment, folder and output of the process that asked."""
    data, files, _, _ = socket.recv_fds(request, _BYTES, 3)
    while part := request.recv(_BYTES):
        data += part
    asked = json.loads(data)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()  # Ray ends a worker's process group with it
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = asked["arguments"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    request.sendall(FORKED)


def main(folder: str, listener: str, driver: str, *preload: str) -> None:
    """Serve until the driver has ended; a fork runs Ray's own script for a worker instead."""
    for module in preload:
        with suppress(ImportError):  # a worker that needs it says so
            import_module(module)
    server = os.getpid()
    try:
        if _serve(socket.socket(fileno=int(listener)), int(driver)):
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        if os.getpid() == server:
            _end_workers()
            shutil.rmtree(folder, ignore_errors=True)


def _end_workers() -> None:
    """Ray ends its workers; one that is frozen does not hear of it, and would keep its memory for good."""
    until = time.monotonic() + _GRACE_SECONDS
    while (left := _children()) and time.monotonic() < until:
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]


if __name__ == "__main__":
    main(*sys.argv[1:])
