"""The command line. Nothing heavy is imported at the top: `--help` and cached runs stay fast."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestration.errors import NotFound, exit_code_of
from orchestration.host.signals import Signals
from workflows.cli import cluster, storage
from workflows.cli.about import about
from workflows.cli.init import init
from workflows.cli.lens.command import lens
from workflows.cli.options import (
    AsJson,
    AsMermaid,
    AsTree,
    Cluster,
    Columns,
    DataDir,
    Executor,
    Explained,
    Key,
    KeyOrRun,
    ModelName,
    RunA,
    RunB,
    SomeRun,
    StorePlace,
    TrackingUri,
    Word,
    WorkflowFile,
    open_store,
    read_store,
)
from workflows.cli.prediction import export_model, predict, serve
from workflows.cli.report import report
from workflows.cli.ui import ui
from workflows.errors import ConfigError, Interrupted
from workflows.runtime.environment import how_to_go_on, tracking_uri

app = typer.Typer(
    help="Vocabulary-defined semantics as a cached benchmark: the language model runs once, and later runs use its "
    "cached states.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


app.callback()(about)
app.command()(init)


@app.command()
def run(
    file: WorkflowFile,
    store: StorePlace = None,
    data_dir: DataDir = None,
    mlflow: TrackingUri = None,
    executor: Executor = None,
    address: Cluster = None,
    columns: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow: compute what is not cached, show the comparison, track it in MLflow."""
    from workflows.results.columns import asked_columns

    started = time.monotonic()
    more = asked_columns(columns) if columns else []
    _run(_session(file, store, data_dir, mlflow, executor, address), started, as_json, more=more)


@app.command()
def sweep(
    file: WorkflowFile,
    best: Annotated[bool, typer.Option("--best", help="Print only the best settings, as a compare workflow.")] = False,
    store: StorePlace = None,
    data_dir: DataDir = None,
    mlflow: TrackingUri = None,
    executor: Executor = None,
    address: Cluster = None,
    as_json: AsJson = False,
) -> None:
    """Run a `workflow: sweep`: search a method's settings, and fit the best again with new seeds."""
    started = time.monotonic()
    if best and as_json:
        raise ConfigError("--best prints YAML and --json prints JSON; give one of them")
    opened = _session(file, store, data_dir, mlflow, executor, address, "sweep")
    _run(opened, started, as_json, opened.job.best_yaml if best else None)


@app.command()
def plan(
    file: WorkflowFile,
    store: StorePlace = None,
    data_dir: DataDir = None,
    tree: AsTree = False,
    mermaid: AsMermaid = False,
    as_json: AsJson = False,
) -> None:
    """Show which steps are cached, which would run or are blocked, and why. Runs nothing."""
    from workflows.cli.plan_text import plan_document, plan_text

    if tree + mermaid + as_json > 1:
        raise ConfigError("--tree, --mermaid and --json cannot be combined; give one of them")
    opened = _session(file, store, data_dir, None)
    planned = opened.plan()
    if mermaid or tree:
        from orchestration.runs.drawing import plan_mermaid, plan_tree

        print(plan_mermaid(planned) if mermaid else plan_tree(opened.job.targets, planned))
    if not mermaid:
        _print(plan_document(planned, opened.store), as_json, lambda found: plan_text(found, not tree))


@app.command()
def validate(file: WorkflowFile, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check a workflow file and the files it names without running it. Exit status 2 if there are problems."""
    from workflows.cli.validate import findings_document, findings_text
    from workflows.cli.validate import validate as check

    findings = check(file, _folder(data_dir))
    _print(findings_document(file, findings), as_json, lambda _: findings_text(file, findings))
    if findings.problems:
        raise typer.Exit(2)


@app.command()
def basis(model: ModelName, word: Word = None, store: StorePlace = None, as_json: AsJson = False) -> None:
    """Compute the semantic basis of a model's head without loading the model, and show its properties."""
    from workflows.cli.basis import basis_document, basis_text, make_basis

    made = make_basis(model, open_store(store), _say, bool(word))
    _end_if(made.failures)
    _print(basis_document(made, word or []), as_json, basis_text)


@app.command()
def explain(name: Explained = None, as_json: AsJson = False) -> None:
    """Explain a method, a step, a term or a field of a YAML file [default: list their names]."""
    from workflows.cli import explain as explaining

    if not name and not as_json:
        print(explaining.contents())
        return
    found = explaining.explain(" ".join(name)) if name else explaining.topics()
    _print(explaining.document(found), as_json, lambda _: explaining.text(found))


app.command()(lens)


@app.command()
def show(key_or_run: KeyOrRun, store: StorePlace = None, as_json: AsJson = False) -> None:
    """Show the details of an artifact or a run."""
    from orchestration.runs.lookup import find_either
    from orchestration.store.artifacts import Artifact
    from workflows.cli.inspect import artifact_document, artifact_text, run_document, run_text

    opened = read_store(store)
    found = find_either(key_or_run, opened)
    if isinstance(found, Artifact):
        _print(artifact_document(found, opened), as_json, artifact_text)
    else:
        _print(run_document(found), as_json, run_text)


@app.command()
def why(key: Key, store: StorePlace = None, as_json: AsJson = False) -> None:
    """Explain an artifact's key: its fields and inputs, how the most similar one differs, and the runs that use it."""
    from orchestration.runs.lookup import find_artifact
    from workflows.cli.inspect import why_document, why_text

    opened = read_store(store)
    _print(why_document(find_artifact(key, opened), opened), as_json, why_text)


@app.command()
def diff(run_a: RunA, run_b: RunB, store: StorePlace = None, as_json: AsJson = False) -> None:
    """Compare two runs: the steps that differ, the fields that changed, and the results side by side."""
    from orchestration.runs.lookup import find_run
    from workflows.cli.diff import diff_document, diff_text

    opened = read_store(store)
    _print(diff_document(find_run(run_a, opened), find_run(run_b, opened)), as_json, diff_text)


app.command()(report)
app.command()(predict)
app.command()(serve)
app.command("export-model")(export_model)


@app.command()
def sync(run: SomeRun = None, store: StorePlace = None, mlflow: TrackingUri = None, as_json: AsJson = False) -> None:
    """Copy the records of runs to MLflow: adds what is missing, without duplicates."""
    from orchestration.tracking.registry import open_tracker
    from workflows.cli.sync import sync as fill_in
    from workflows.cli.sync import synced_text

    opened = read_store(store)
    done = list(fill_in(opened, open_tracker(tracking_uri(mlflow), opened.root), run, _say))
    _print({"runs": [vars(entry) for entry in done]}, as_json, lambda _: synced_text(done))
    if any(entry.state == "refused" for entry in done):
        raise typer.Exit(1)


app.command()(storage.verify)
app.command("ls")(storage.list_artifacts)
app.command()(storage.gc)
app.command("export")(storage.export_run)
app.command("import")(storage.import_run)


@app.command()
def preflight(
    file: WorkflowFile,
    address: Cluster = None,
    store: StorePlace = None,
    data_dir: DataDir = None,
    mlflow: TrackingUri = None,
) -> None:
    """Check, from a node of a Ray cluster, that the cluster has what a run needs. Exit status 2 if not."""
    from workflows import session

    session.preflight(_session(file, store, data_dir, mlflow, None, address), _say)


for command in (cluster.submit, cluster.jobs, cluster.logs, cluster.stop, ui):
    app.command()(command)


def main() -> None:
    """Entry point: neither a user's mistake (exit status 2) nor a signal (128 and its number) ends in a traceback."""
    signals = Signals()
    signals.listen()
    try:
        app()
    except Interrupted as interrupted:
        if not interrupted.said:
            _say(str(interrupted))
        sys.exit(signals.exit_status)
    except SystemExit:
        if signals.first is not None:  # Typer has made an exit status of it, and says nothing
            _say(f"interrupted; {how_to_go_on()}")
            sys.exit(signals.exit_status)
        raise
    except Exception as error:
        code = exit_code_of(error)
        if code is None:  # no mistake of the user's, but one of ours: show where
            raise
        hint = "; `vocabsem ls` lists what is stored" if isinstance(error, NotFound) else ""
        _say(f"error: {error}{hint}")
        sys.exit(code)


def _session(
    file: Path,
    store: str | None,
    data_dir: Path | None,
    mlflow: str | None,
    executor: str | None = None,
    address: str | None = None,
    kind: str | None = None,
) -> Any:
    from workflows.api import open_workflow

    return open_workflow(file, store, _folder(data_dir), mlflow, executor, address, kind=kind)


def _run(
    opened: Any, started: float, as_json: bool, instead: Callable[[Any], str] | None = None, more: Any = ()
) -> None:
    """Run a session and show what it came to: a text, one JSON document, or what `instead` makes of the store."""
    from workflows import session
    from workflows.results.document import document
    from workflows.runtime import progress

    done = session.run(opened, _say, progress.watching_on(sys.stderr), how_to_go_on())
    seconds = time.monotonic() - started
    if as_json:
        made = document(done.run_id, done.counts, done.results, done.mlflow_run_id, seconds)
        print(json.dumps({**made, "notes": done.notes, **opened.job.document(opened.store)}))
    elif instead is not None and not done.failures:
        print(instead(opened.store), end="")
    else:
        _show(done, opened, seconds, more)
    sys.stdout.flush()  # of a pipe too, results come first
    for warning in done.warnings:
        _say(f"warning: {warning}")
    _end_if(done.failures)


def _folder(data_dir: Path | None) -> Path | None:
    if data_dir is not None and not data_dir.is_dir():
        raise ConfigError(f"--data-dir {data_dir}: no such folder")
    return data_dir.absolute() if data_dir is not None else None  # workers have folders of their own


def _print(document: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(document) if as_json else text(document))


def _end_if(failures: list[tuple[str, Any]]) -> None:
    """Exit status 2 where all failures are the user's mistakes, else 1."""
    if not failures:
        return
    for label, outcome in failures:
        _say(f"{label} failed: {outcome.error}")
    _say(f"Finished steps are kept. After fixing the cause, {how_to_go_on()}")
    raise typer.Exit(2 if all(outcome.exit_code == 2 for _, outcome in failures) else 1)


def _show(done: Any, opened: Any, seconds: float, more: Any) -> None:
    from workflows.report.files import HTML
    from workflows.results.table import table

    if done.results:
        print(table(done.results, more), end="\n\n")
    for note in done.notes:
        print(note)
    counts = done.counts
    print(
        f"run {done.run_id}: {counts['ran']} steps ran, {counts['cached']} cached, {counts['failed']} failed, "
        f"{seconds:.1f} s"
    )
    folder = opened.store.root
    here = opened.store.mirror is None and folder.is_relative_to(Path.cwd())
    print(f"kept in {os.path.relpath(folder) + os.sep if here else opened.store}")
    if (report := folder / "runs" / done.run_id / HTML).is_file():
        print(f"report: {os.path.relpath(report) if here else report}")
    if done.shown is not None:
        print(f"MLflow: {opened.tracker.page(done.shown, '`vocabsem ui`')}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
