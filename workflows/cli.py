"""The command line. Nothing heavy is imported at the top: `--help` and cached runs stay fast."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from workflows.errors import ConfigError

app = typer.Typer(
    help="Vocabulary-defined semantics as a cached benchmark: the language model runs once, every later question is "
    "answered from the cache.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)

WorkflowFile = Annotated[Path, typer.Argument(metavar="FILE", help="Workflow file (YAML).")]
StorePath = Annotated[
    Path | None,
    typer.Option(
        "--store", help="Folder of the artifacts [default: $VOCABSEM_STORE, the file's `store`, ./.vocabsem/store]."
    ),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Take catalog tasks from DIR/<task>/train.jsonl and test.jsonl.")
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--mlflow", help="MLflow tracking URI [default: $MLFLOW_TRACKING_URI, a SQLite file beside the store]."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Executor = Annotated[
    str | None, typer.Option("--executor", help="`ray`, or `inline`: everything in this process, for a debugger.")
]


@app.command()
def run(
    file: WorkflowFile,
    store: StorePath = None,
    data_dir: DataDir = None,
    mlflow: TrackingUri = None,
    executor: Executor = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow: compute what is not cached, show the comparison, track it in MLflow."""
    started = time.monotonic()
    from workflows import report, session

    opened = _session(file, store, data_dir, mlflow)
    execution = opened.config.execution.model_copy(update={"executor": executor} if executor else {})
    done = session.run(opened, execution, _say)
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps(report.document(done.run_id, done.counts, done.results, done.mlflow_run_id, seconds)))
    else:
        _show(done, opened.store.root, seconds)
    if done.failures:
        for label, outcome in done.failures:
            _say(f"{label} failed: {outcome.error}")
        _say(f"What was finished is kept. After the cause is mended, go on with:  {_command()}")
        raise typer.Exit(2 if all(outcome.exit_code == 2 for _, outcome in done.failures) else 1)


@app.command()
def plan(file: WorkflowFile, store: StorePath = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what a run would do, and why: each step cached, to run because of something, or blocked. Runs nothing."""
    planned = _session(file, store, data_dir, None).plan()
    if as_json:
        print(
            json.dumps(
                {"steps": [{"name": p.step.label, "key": p.step.key, "state": p.state, "why": p.why} for p in planned]}
            )
        )
        return
    for entry in planned:
        print(f"{entry.state:8} {entry.step.label}" + (f"   because {entry.why}" if entry.why else ""))
    counts = {state: sum(entry.state == state for entry in planned) for state in ("cached", "run", "blocked")}
    print(f"{counts['cached']} cached, {counts['run']} to run, {counts['blocked']} blocked")


@app.command()
def verify(store: StorePath = None, as_json: AsJson = False) -> None:
    """Read every byte of every artifact and compare it with the checksums. Exit status 1 where something is damaged."""
    artifacts = _store(store).artifacts()
    damaged = [damage for artifact in artifacts for damage in artifact.damages(every_byte=True)]
    if as_json:
        print(json.dumps({"checked": len(artifacts), "damaged": [vars(damage) for damage in damaged]}))
    else:
        for damage in damaged:
            print(f"damaged  {damage}")
        print(f"{len(artifacts)} artifacts checked, {len(damaged)} files damaged")
        if damaged:
            print("Remove the folders named above and run the workflow again: it makes them anew, and nothing else.")
    if damaged:
        raise typer.Exit(1)


@app.command("ls")
def list_artifacts(store: StorePath = None, as_json: AsJson = False) -> None:
    """List the artifacts of the store."""
    rows = [
        {
            "step": artifact.folder.parent.name,
            "key": artifact.folder.name,
            "rows": artifact.rows,
            "bytes": sum(entry["bytes"] for entry in artifact.manifest["files"].values()),
            "finished": artifact.json("provenance.json")["finished"],
        }
        for artifact in _store(store).artifacts()
    ]
    if as_json:
        print(json.dumps({"artifacts": rows}))
        return
    for row in rows:
        print(f"{row['step']:10}  {row['key']}  {row['rows']:>9,} rows  {row['bytes']:>13,} bytes  {row['finished']}")
    print(f"{len(rows)} artifacts, {sum(row['bytes'] for row in rows):,} bytes")


@app.command()
def ui(
    store: StorePath = None,
    mlflow: TrackingUri = None,
    host: Annotated[
        str, typer.Option(help="Address to bind to. The server has no login: keep it on localhost.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 5000,
) -> None:
    """Browse results in MLflow: starts its server on localhost and prints the address."""
    from orchestration.tracking import database_file, default_uri, server_command

    uri = _tracking_uri(mlflow) or default_uri(_store(store).root)
    database = database_file(uri)
    if database is None:
        raise ConfigError(f"{uri} is a server of its own: open it in a browser; `ui` is for SQLite files")
    if not database.is_file():
        raise ConfigError(f"no MLflow database {database}; run a workflow first, or name its store with --store")
    _say(f"MLflow: http://{host}:{port}   (about 15 seconds to start; end it with Ctrl-C)")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    command = server_command(uri, host, port)
    os.execv(command[0], command)


def main() -> None:
    """Entry point: a user's mistake ends in its message and exit status 2, never in a traceback."""
    try:
        app()
    except Exception as error:
        if not hasattr(error, "exit_code"):  # no mistake of the user's, but one of ours: show where
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _session(file: Path, store: Path | None, data_dir: Path | None, mlflow: str | None) -> Any:
    from workflows.config import CompareConfig
    from workflows.session import open_session
    from workflows.yaml_file import read_yaml

    if data_dir is not None and not data_dir.is_dir():
        raise ConfigError(f"--data-dir {data_dir}: no such folder")
    config = read_yaml(file, CompareConfig)
    return open_session(config, file, _store(store, config.store), data_dir, _tracking_uri(mlflow))


def _store(given: Path | None, configured: Path | None = None) -> Any:
    from orchestration.store import open_store

    environment = os.environ.get("VOCABSEM_STORE")
    return open_store(given or (Path(environment) if environment else None) or configured or Path(".vocabsem/store"))


def _tracking_uri(given: str | None) -> str | None:
    return given or os.environ.get("MLFLOW_TRACKING_URI")


def _show(done: Any, store: Path, seconds: float) -> None:
    from workflows.report import table

    if done.results:
        print(table(done.results))
        print()
    for note in done.notes:
        print(note)
    counts = done.counts
    print(
        f"run {done.run_id}: {counts['ran']} steps ran, {counts['cached']} cached, {counts['failed']} failed, "
        f"{seconds:.1f} s"
    )
    print(f"store {os.path.relpath(store) if store.is_relative_to(Path.cwd()) else store}; browse with `vocabsem ui`")


def _command() -> str:
    import shlex

    return shlex.join(["vocabsem", *sys.argv[1:]])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
