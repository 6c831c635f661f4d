"""The arguments and options that commands share, and what a shell proposes for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from workflows.inputs.paths import named
from workflows.results.columns import ON_REQUEST
from workflows.runtime.environment import store_place


def open_store(given: str | None, configured: str | None = None) -> Any:
    """The store a command fills: the option, the environment, the workflow file, a folder here; made where missing."""
    from orchestration.store import artifacts

    return artifacts.open_store(store_place(given, configured))


def read_store(given: str | None) -> Any:
    """The store a command only reads; raises StoreError where there is none."""
    from orchestration.store import artifacts

    return artifacts.existing_store(store_place(given, None))


def path_given(value: Path | None) -> Path | None:
    """A path of the command line; a shell expands `~` in a word of its own alone, not in `--html=~/page.html`."""
    return None if value is None else Path(named(str(value), "path"))


def _reference_given(value: str) -> str:
    return named(value, "path")


def _files(incomplete: str) -> Iterator[str]:
    """YAML files, and the folders on the way to them."""
    start = incomplete.rpartition("/")[2]
    folder = Path(incomplete[: len(incomplete) - len(start)])
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        shown = path.name.startswith(start) and (start or not path.name.startswith("."))
        if shown and path.is_dir():
            yield f"{path}/"
        elif shown and path.suffix in (".yaml", ".yml"):
            yield str(path)


def _runs(context: typer.Context, incomplete: str) -> Iterator[str]:
    from orchestration.runs.lookup import LATEST
    from orchestration.runs.record import runs

    given = context.params.get("store")
    names = [LATEST, *(record.run_id for record in runs(read_store(given)))]
    return (name for name in names if name.startswith(incomplete))


def _explained(incomplete: str) -> Iterator[str]:
    from workflows.cli.explain import topics

    return (one.name for one in topics() if one.name.startswith(incomplete))


def _keys(context: typer.Context, incomplete: str) -> Iterator[str]:
    from orchestration.runs.lookup import by_folder

    names = [name for place in by_folder(read_store(context.params.get("store"))) for name in (place, Path(place).name)]
    return (name for name in names if name.startswith(incomplete))


def _keys_and_runs(context: typer.Context, incomplete: str) -> Iterator[str]:
    yield from _runs(context, incomplete)
    yield from _keys(context, incomplete)


WorkflowFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="Workflow file (YAML).", autocompletion=_files, show_default=False, callback=path_given
    ),
]
ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Catalog name, folder, model YAML file, or Hugging Face id.", callback=_reference_given
    ),
]
Explained = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME",
        help="Method, method's .py file, step, term or field, `search.trials` or `trials`.",
        autocompletion=_explained,
    ),
]
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="First characters of an artifact's key, or step/characters.", autocompletion=_keys
    ),
]
KeyOrRun = Annotated[
    str,
    typer.Argument(
        metavar="KEY_OR_RUN",
        help="First characters of an artifact's key or of a run's id, step/characters of a key, or `latest`.",
        autocompletion=_keys_and_runs,
    ),
]
RunA = Annotated[
    str,
    typer.Argument(metavar="RUN_A", help="A run's id, or `latest`: the last run with results.", autocompletion=_runs),
]
RunB = Annotated[str, typer.Argument(metavar="RUN_B", help="The run it is compared with.", autocompletion=_runs)]
OneRun = Annotated[
    str, typer.Argument(metavar="RUN", help="First characters of a run's id, or `latest`.", autocompletion=_runs)
]
OfMethod = Annotated[
    str | None,
    typer.Option("--method", help="Name of the method in the results [default: the best on the validation rows]."),
]
OfModel = Annotated[str | None, typer.Option("--model", help="Name of the model, where the run has several.")]
OfTask = Annotated[str | None, typer.Option("--task", help="Name of the task, where the run has several.")]
OfSeed = Annotated[int | None, typer.Option("--seed", help="Seed of the fit [default: the first].")]
KeptRuns = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="RUN",
        help="Keep the artifacts that this run uses; can be repeated [default: every recorded run].",
        autocompletion=_runs,
    ),
]
SomeRun = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="A run's id or `latest` [default: every run missing from MLflow].", autocompletion=_runs
    ),
]
SomeReport = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id or `latest`.", autocompletion=_runs, show_default=False)
]
StorePlace = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Folder for the artifacts, or s3://bucket/prefix [default: $VOCABSEM_STORE, the file's `store`, "
        "./.vocabsem/store].",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Read catalog tasks from DIR/<task>/train.jsonl and test.jsonl.", callback=path_given
    ),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--mlflow", help="MLflow tracking URI [default: $MLFLOW_TRACKING_URI, a SQLite file next to the store]."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="NAMES",
        help=f"Additional columns of the table, separated by commas: {', '.join(ON_REQUEST)}.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Executor = Annotated[
    Literal["ray", "inline"] | None,
    typer.Option("--executor", help="`ray`, or `inline` to run everything in this process, for debugging."),
]
Word = Annotated[
    list[str] | None, typer.Option("--word", help="Show this word's tokens and similarities; can be repeated.")
]
AsTree = Annotated[bool, typer.Option("--tree", help="Draw the graph as a tree, from results down to inputs.")]
AsMermaid = Annotated[bool, typer.Option("--mermaid", help="Print the graph as a Mermaid flowchart.")]
Cluster = Annotated[
    str | None,
    typer.Option("--address", help="host:port of a running Ray cluster; the command must run on one of its nodes."),
]
JobServer = Annotated[
    str | None, typer.Option("--address", help="The cluster's dashboard, http://HOST:8265 [default: $RAY_ADDRESS].")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, see `vocabsem jobs`.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Show the job's output until it ends, and exit with its exit status.")
]
Installed = Annotated[
    bool,
    typer.Option("--installed", help="Do not upload the source of VocabSem: every node has this version."),
]
