"""The commands that use a fit of a finished comparison: `predict`, `serve` and `export-model`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from workflows.cli.options import (
    Cluster,
    Executor,
    OfMethod,
    OfModel,
    OfSeed,
    OfTask,
    OneRun,
    StorePlace,
    TrackingUri,
    path_given,
    read_store,
)
from workflows.errors import ConfigError, Interrupted
from workflows.runtime.environment import tracking_uri

_STDIN = "-"
_LOCAL = ("127.0.0.1", "localhost", "::1")


def predict(
    run: OneRun,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Rows to label: .csv, .jsonl or .parquet with the columns of the task; - reads CSV or JSON lines from "
            "standard input.",
            callback=path_given,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write: .csv, .jsonl or .parquet [default: standard output].",
            callback=path_given,
        ),
    ] = None,
    method: OfMethod = None,
    model: OfModel = None,
    task: OfTask = None,
    seed: OfSeed = None,
    abstain_below: Annotated[
        float | None,
        typer.Option("--abstain-below", min=0, max=1, help="Leave the prediction empty below this probability."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    executor: Executor = None,
    store: StorePlace = None,
) -> None:
    """Label the rows of a file with a method of a finished comparison."""
    from workflows.prediction.predict import predict as label_rows
    from workflows.prediction.predict import summary
    from workflows.prediction.tables import check_output, with_predictions, write
    from workflows.runtime.progress import watching_on

    if out is not None:
        check_output(out, overwrite)
    opened, _, classifier = _chosen(run, store, (model, task, method, seed), executor)
    with _rows(data) as rows:
        found = label_rows(classifier, rows, opened, executor, _say, watching_on(sys.stderr))
        like_it = rows.suffix if rows.suffix == ".csv" else ".jsonl"
        suffix = out.suffix if out is not None else like_it
        content = with_predictions(rows, found.columns(abstain_below), suffix)
    if out is None:
        sys.stdout.write(content.decode())
        sys.stdout.flush()
    else:
        write(out, content)
    for line in summary(classifier, found, abstain_below):
        _say(line)
    if out is not None:
        _say(f"written to {out}")


def _chosen(run: str, store: str | None, asked: tuple[Any, ...], executor: str | None = None) -> tuple[Any, Any, Any]:
    """The store, the run, and the fit of it that is meant by model, task, method and seed."""
    from orchestration.runs.lookup import find_run
    from workflows.kind import Asked
    from workflows.prediction.choice import choose
    from workflows.runtime.progress import watching_on

    opened = read_store(store)
    record = find_run(run, opened)
    return opened, record, choose(record, opened, Asked(*asked), executor, _say, watching_on(sys.stderr))


@contextmanager
def _rows(data: Path) -> Iterator[Path]:
    """The file, or a temporary one of what comes from standard input."""
    if str(data) != _STDIN:
        yield data.absolute()  # workers have folders of their own
        return
    text = sys.stdin.buffer.read()
    with TemporaryDirectory() as folder:
        path = Path(folder) / ("stdin.jsonl" if text.lstrip()[:1] in (b"{", b"[") else "stdin.csv")
        path.write_bytes(text)
        yield path


def serve(
    run: OneRun,
    method: OfMethod = None,
    model: OfModel = None,
    task: OfTask = None,
    seed: OfSeed = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 is any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help="File with a token that requests must bear; required for any address but this machine's own.",
            callback=path_given,
        ),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Serve by Ray Serve, on this machine or on the cluster of --address."),
    ] = False,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Processes that hold the model, with --ray.")] = 1,
    gpus: Annotated[
        float | None,
        typer.Option(
            "--gpus", min=0, help="GPUs of each replica, a fraction or whole ones [default: one if there are GPUs]."
        ),
    ] = None,
    address: Cluster = None,
    store: StorePlace = None,
) -> None:
    """Label texts over HTTP with a method of a finished comparison: POST /predict, GET /healthz."""
    if not ray and (replicas > 1 or gpus is not None or address is not None):
        raise ConfigError("--replicas, --gpus and --address are of --ray; give it too")
    token = _token(host, token_file)
    listening = _socket(host, port)
    opened, _, classifier = _chosen(run, store, (model, task, method, seed))
    candidate = classifier.candidate
    _say(f"loading {candidate.method} ({classifier.why}), {candidate.model}, task {candidate.task}")
    if ray:
        _from_replicas(classifier, opened, token, (replicas, gpus, address or classifier.execution.address), listening)
    else:
        _from_here(classifier, opened, token, listening)
    raise Interrupted("stopped")


def _from_here(classifier: Any, store: Any, token: str | None, listening: Any) -> None:
    """Serve in this process, until Ctrl-C."""
    from workflows.prediction.service import Service

    service = Service(classifier, store)
    listening.listen()  # a request that comes now waits
    _say_where(listening.getsockname())
    _run(service, classifier.candidate, token, listening)
    service.close()


def _from_replicas(
    classifier: Any, store: Any, token: str | None, wanted: tuple[int, float | None, str | None], listening: Any
) -> None:
    """Serve on Ray, until Ctrl-C: replicas, GPUs of each, and the cluster's address."""
    from orchestration.ray_backend.serving import follow
    from workflows.prediction.replicas import replicas_of

    host, port = listening.getsockname()[:2]
    listening.close()  # it was free, and Ray Serve's own process takes it
    with suppress(KeyboardInterrupt), replicas_of(classifier, store, token, *wanted, host, port, _say):
        _say_where((host, port))
        follow(_say)


def _say_where(place: Any) -> None:
    host, port = place[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    _say(f"serving on {address}; POST {address}/predict, Ctrl-C ends it")


def _run(service: Any, candidate: Any, token: str | None, listening: Any) -> None:
    import uvicorn

    from workflows.prediction.server import About, application

    app = application(service.documents, About.of(candidate), token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:  # which it raises again, once all requests are answered
        return


def _token(host: str, file: Path | None) -> str | None:
    """Raises ConfigError for a file without a token, and where one is needed."""
    if file is None:
        if host not in _LOCAL:
            raise ConfigError(f"--host {host} can be reached from other machines: give --token-file with a token")
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--token-file {file}: cannot be read ({error.strerror})") from error
    if not token or not token.isascii() or " " in token:
        raise ConfigError(f"--token-file {file}: expected one token, ASCII characters without spaces")
    return token


def _socket(host: str, port: int) -> Any:
    """A socket that listens. Raises ConfigError where the address is in use, or not this machine's."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigError(f"{host}:{port} cannot be listened on ({error.strerror}); take another --port") from error
    return made


def export_model(
    run: OneRun,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Folder to make.", callback=path_given, show_default=False)
    ] = None,
    register: Annotated[
        str | None,
        typer.Option("--register", metavar="NAME", help="Name of the model in MLflow's registry: a new version of it."),
    ] = None,
    method: OfMethod = None,
    model: OfModel = None,
    task: OfTask = None,
    seed: OfSeed = None,
    store: StorePlace = None,
    mlflow: TrackingUri = None,
) -> None:
    """Write a fit of a finished comparison as a folder that needs only torch and transformers, or peft.

    With --register, name the fit's MLflow model in MLflow's registry of models; a folder is made where one is given.
    """
    from workflows.prediction.export import export, register_model

    if folder is None and register is None:
        raise ConfigError("name a folder to make, or a model of MLflow's registry with --register")
    opened, record, classifier = _chosen(run, store, (model, task, method, seed))
    named = f"{classifier.candidate.method} ({classifier.why})"
    if folder is not None:
        _say(f"{named} is in {folder}: {', '.join(export(classifier, record, opened, folder))}")
    if register is not None:
        address = register_model(classifier, record, opened, tracking_uri(mlflow), register)
        _say(f"{named} is {address}: mlflow.pyfunc.load_model({address!r})")


def _say(line: Any) -> None:
    print(line, file=sys.stderr, flush=True)
