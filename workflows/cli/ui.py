"""The command `ui`: MLflow's own server on the database beside a store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from workflows.cli.options import StorePlace, TrackingUri, read_store
from workflows.errors import ConfigError
from workflows.runtime.environment import tracking_uri


def ui(
    store: StorePlace = None,
    mlflow: TrackingUri = None,
    host: Annotated[
        str, typer.Option(help="Address to bind to. The server has no login: keep it on localhost.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=1, max=65535)] = 5000,
) -> None:
    """Browse results in MLflow: starts its server on localhost and prints the address."""
    from orchestration.runs.record import runs
    from orchestration.tracking.mlflow_client import (
        MlflowTracker,
        database_file,
        default_uri,
        server_command,
    )
    from orchestration.tracking.projection import shown

    uri, known = tracking_uri(mlflow), []
    if uri is None:
        opened = read_store(store)
        uri, known = default_uri(opened.root), runs(opened)
    tracker, database = MlflowTracker(uri), database_file(uri)
    if database is None:
        raise ConfigError(
            f"{tracker.name} is not a SQLite file. If it is a server, open its address in a browser; for another "
            "database, run `mlflow server --backend-store-uri ADDRESS`"
        )
    if not database.is_file():
        raise ConfigError(f"no MLflow database {database}; run a workflow or `vocabsem sync`, or give --store")
    _check_free(host, port)
    _tell(f"MLflow: http://{host}:{port}   (about 15 seconds to start; stop it with Ctrl-C)")
    if last := next((found for record in known if (found := shown(record, tracker))), None):
        _tell(f"last run: http://{host}:{port}/{last.page}")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["PYTHONSAFEPATH"] = "1"
    # MLflow's own use of it, told by each of its processes
    os.environ.setdefault("PYTHONWARNINGS", "ignore:starlette.middleware.wsgi is deprecated")
    command = server_command(uri, host, port)
    os.execv(command[0], command)


def _check_free(host: str, port: int) -> None:
    """Raises ConfigError where another program listens: MLflow's server would only tell after half a minute."""
    import socket

    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --port or --host"
        ) from error


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
