"""A Ray of our own on this machine, beside whatever other Ray runs here: free ports, a token of its own, no home."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from orchestration.errors import ClusterError
from orchestration.host.environment import environment, restored
from orchestration.ray_backend.fork_server import WORKER, fork_server
from orchestration.ray_backend.pools import ray

_OBJECT_STORE_BYTES = 128 << 20  # only paths travel through it
# Idle workers a core that wait for the next step, where Ray would keep one: a new one has all imports before it.
_KEPT_WORKERS = 3
_ROOT = Path(__file__).parents[1]  # of our packages
_SOCKET = "ray/session_2000-01-01_00-00-00_000000_0000000/sockets/plasma_store"  # Ray's longest, below its folder
_SOCKET_BYTES = 107  # of a path that the kernel takes


@contextmanager
def private_ray(preload: Sequence[str] = (), cores: int | None = None) -> Iterator[None]:
    """Start Ray and connect to it, until the end of the block.

    Args:
        preload: modules that most workers import; they are imported once for all of them.
        cores: that it has; None: the machine's.

    Raises ClusterError, which names the cause where it is known.
    """
    folder = _folder()
    with ExitStack() as last:
        with _explaining(folder):
            _start(last.enter_context(fork_server(preload, folder)), cores)
            last.callback(ray.shutdown)
        yield


def _folder() -> str:
    """Where Ray keeps its sockets. Raises ClusterError where that is too long a path."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # as Ray chooses it
    if len(os.fsencode(f"{folder}/{_SOCKET}")) > _SOCKET_BYTES:
        raise ClusterError(
            f"Ray cannot start: {folder!r} ($RAY_TMPDIR, else $TMPDIR) is too long a path for its sockets; set "
            f"RAY_TMPDIR to a folder of at most {_SOCKET_BYTES - len(_SOCKET) - 1} characters, such as /tmp."
        )
    return folder


def _start(variables: dict[str, str], cores: int | None) -> None:
    with _apart(variables), in_our_folder():
        ray.init(
            address="local",
            num_cpus=cores,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _system_config={"num_workers_soft_limit": _KEPT_WORKERS * (os.cpu_count() or 1)},
        )


@contextmanager
def _explaining(folder: str) -> Iterator[None]:
    """Raises ClusterError for what keeps Ray from starting."""
    try:
        yield
    except OSError as error:
        raise ClusterError(
            f"Ray cannot start: it cannot write {error.filename or folder} ({error.strerror or error}). Set RAY_TMPDIR "
            "to a short folder that you can write to, or take `--executor inline`, which needs no Ray."
        ) from error
    except Exception as error:  # Ray has a bare Exception for a node that did not come up in time
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClusterError(
            f"Ray could not start on this machine ({told}). It may be short of memory or very busy: run again, or "
            "take `--executor inline`, which needs no Ray."
        ) from error


def in_our_folder() -> chdir:
    """For the call of ray.init, which puts the current folder before all others of its workers' import path.

    The user's folder may hold a module named like a library, such as datasets.py.
    """
    return chdir(_ROOT)


@contextmanager
def _apart(variables: dict[str, str]) -> Iterator[None]:
    """Ports that are free in place of Ray's fixed ones, which a cluster on this machine needs, and a token of our own.

    No autoscaler, since there is no other node, and no process that looks for log lines to print. These, the agent's
    port and the workers' script are no arguments of ray.init: they get other defaults for this call.
    """
    import ray._private.parameter as private
    import ray._raylet as raylet

    parameter: Any = private
    loader: Any = raylet
    before = parameter.RayParams
    given = {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # rather than one in the user's home, which may not be writable
        "DASHBOARD_METRIC_PORT": "0",
        "AUTOSCALER_METRIC_PORT": "0",
        **variables,
    }
    fixed = {"dashboard_agent_listen_port": 0, "no_monitor": True, "include_log_monitor": False}
    parameter.RayParams = partial(before, **fixed, **({"worker_path": WORKER} if variables else {}))
    try:
        # Ray sets the mode for all that this process starts from then on: another Ray would miss the token.
        with restored("RAY_AUTH_MODE"), environment(given):
            loader.AuthenticationTokenLoader.instance().reset_cache()  # Ray may have looked for a token already
            yield
    finally:
        parameter.RayParams = before
