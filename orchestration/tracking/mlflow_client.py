"""MLflow as a projection of a run's files: whatever is missing there can be filled in again at any time.

Logging over a network happens at least once, so every run carries the tag `vocabsem.key` and is looked up by it before
it is created: nothing doubles.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from orchestration.store import files
from orchestration.tracking.lock import one_at_a_time
from orchestration.tracking.mlflow_pages import CLASSIC, alone, share
from orchestration.tracking.tracker import (
    ExperimentDeleted,
    Heard,
    Shown,
    TrackedData,
    TrackedModel,
    TrackedRun,
    TrackingError,
    unheard,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

_ROOT = Path(__file__).parents[1]  # of our packages
KEY_TAG = "vocabsem.key"
_PARENT_TAG = "mlflow.parentRunId"
_MODEL = "model"  # folder of a run's artifacts
_TABLES_TAG = "mlflow.loggedArtifacts"
_DIGEST = 36  # characters that MLflow keeps of one
_MOST_METRICS = 1000  # of one call; MLflow refuses more
_LONGEST_NOTE = 8000  # characters; MLflow cuts the rest off, with a warning
_unhurried: set[str] = set()  # files of databases that this process writes as a projection


def default_uri(store: Path) -> str:
    """A SQLite database beside the store."""
    plain = str(store.parent / "mlflow.db")
    quoted = plain.replace("%", "%25").replace("?", "%3F")
    # MLflow makes the folder of a path as it stands in sqlite:///, without reading the quotes
    return f"sqlite:///{plain}" if quoted == plain else f"sqlite+pysqlite:///{quoted}"


def database_file(uri: str) -> Path | None:
    """The file of a SQLite URI, None for a server's."""
    found = re.match(r"sqlite(?:\+pysqlite)?:///([^?]+)", uri)
    return Path(unquote(found[1])) if found else None


def artifact_folder(database: Path) -> Path:
    """Where the artifacts of a SQLite database lie: beside it."""
    return database.parent / "mlartifacts"


@dataclass(frozen=True)
class MlflowTracker:
    """MLflow at an address: of a server or a database."""

    uri: str

    @property
    def name(self) -> str:
        return without_credentials(self.uri)

    def is_there(self) -> bool:
        """A server's database is its own matter."""
        return (database := database_file(self.uri)) is None or database.is_file()

    def check_writable(self, experiment: str) -> None:
        with _mlflow(self.uri) as client:
            client.set_experiment_tag(_experiment(client, experiment, self.uri), "vocabsem", "true")

    def write(
        self, experiment: str, parent: TrackedRun, children: tuple[TrackedRun, ...] = (), heard: Heard = unheard
    ) -> Shown:
        with _mlflow(self.uri) as client:
            experiment_id = _experiment(client, experiment, self.uri)
            found = _found(client, experiment_id, f"tags.`{KEY_TAG}` = '{parent.key}'")
            run_id = _write(client, experiment_id, parent, found, {}).info.run_id
            known = _found(client, experiment_id, f"tags.`{_PARENT_TAG}` = '{run_id}'") if children else {}
            for done, child in enumerate(children, start=1):
                known[child.key] = _write(client, experiment_id, child, known, {_PARENT_TAG: run_id})
                heard(done, len(children))
            page = share(client, experiment_id, run_id, parent.view) if parent.view else alone(experiment_id, run_id)
            return Shown(run_id, page)

    def register(self, experiment: str, key: str, name: str) -> str:
        with _mlflow(self.uri) as client:
            found = _found(client, _experiment(client, experiment, self.uri), f"tags.`{KEY_TAG}` = '{key}'")
            run_id = found[key].info.run_id if key in found else None
            if run_id is None or not client.list_artifacts(run_id, _MODEL):
                raise TrackingError(f"MLflow at {self.name}: no model of this fit to register")
            return _registered(client, run_id, name)

    def page(self, shown: Shown, serve: str) -> str:
        """In a browser; of a SQLite database, once it is served. Other databases have no page."""
        if database_file(self.uri) is not None:
            page = f"http://127.0.0.1:5000/{shown.page}"
            return f"{serve} shows it on {page} (another --port: the link that it prints)"
        if not self.uri.startswith(("http://", "https://")):
            return f"run {shown.run_id} in {self.name}"
        return f"{self.name.rstrip('/')}/{shown.page}"


def server_command(uri: str, host: str, port: int) -> list[str]:
    """The command that serves a SQLite database; one worker, since several slow each other on SQLite.

    It takes no module from the current folder: a user's own mlflow.py or flask.py. PYTHONSAFEPATH does the same for
    the processes that it starts.
    """
    database = database_file(uri)
    assert database is not None, "a server needs no second server"
    options = {
        "--backend-store-uri": uri,
        "--artifacts-destination": str(artifact_folder(database)),
        "--host": host,
        "--port": str(port),
        "--workers": "1",
        # uvicorn, too, puts the current folder first on its import path, unless another is named
        "--uvicorn-opts": f"--no-access-log --app-dir {shlex.quote(str(_ROOT))}",
    }
    return [sys.executable, "-P", "-m", "mlflow", "server", *(word for option in options.items() for word in option)]


def note(text: str) -> dict[str, str]:
    """The tag that MLflow shows as a run's description: a text as it stands, its last lines left out if it is long."""
    begin, end, more = "```\n", "\n```", "\n... more in the run's artifacts"
    if len(text) > (room := _LONGEST_NOTE - len(begin) - len(end)):
        text = text[: text.rfind("\n", 0, room - len(more))] + more
    return {"mlflow.note.content": begin + text + end}


def without_credentials(uri: str) -> str:
    """A URI, or a message with URIs in it, that may be stored and shown."""
    return re.sub(r"//[^/\s]*@", "//", uri)


@contextlib.contextmanager
def _mlflow(uri: str) -> Iterator[MlflowClient]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a user's own value stays
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # with a server, it would stand in a --json document
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # seven retries would hold a run for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    try:
        from mlflow import MlflowClient
        from mlflow.store.db import utils
        from sqlalchemy import Engine, event

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # a line for each model that is saved
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # tracebacks of what is told in a line
        utils.MAX_RETRY_COUNT = 3  # ten attempts at a database would hold a run for 100 s
        if (database := database_file(uri)) is not None:
            if not _unhurried:
                event.listen(Engine, "connect", _do_not_wait_for_the_disk)
            _unhurried.add(str(database.resolve()))
            _make_writable(database)
        with one_at_a_time(database.with_name(f"{database.name}.lock")) if database else contextlib.nullcontext():
            yield MlflowClient(tracking_uri=uri)
    except TrackingError:
        raise
    except Exception as error:  # of MLflow, SQLAlchemy, a driver, a parser of addresses: results do not depend on them
        raise TrackingError(without_credentials(f"MLflow at {uri}: {_cause(error)}")) from error


def _cause(error: Exception) -> str:
    """An exception in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"the Python module {error.name!r} that this address needs is not installed"
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return first if type(error).__module__.startswith(("mlflow", "sqlalchemy")) else f"{type(error).__name__}: {first}"


def _make_writable(database: Path) -> None:
    """Make the file with the permissions that the umask gives: SQLite's own never let a group write.

    Raises TrackingError where this user cannot write it.
    """
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        database.touch()
    for place in (database, database.parent):  # SQLite keeps a journal beside it
        if not os.access(place, os.W_OK):
            raise TrackingError(
                f"{place}: is {files.owner(place)}'s and cannot be written by this user. Give its group write "
                "permission (chmod g+w), or name an MLflow of your own with --mlflow"
            )


def _do_not_wait_for_the_disk(connection: Any, _: Any) -> None:
    """Leave it to the system when our databases reach the disk: MLflow commits eight times a run, 8 ms each.

    A killed process loses nothing by it. A power cut may; then remove the database, and fill it anew (projection.py).
    """
    if isinstance(connection, sqlite3.Connection):
        _, _, path = connection.execute("PRAGMA database_list").fetchone()
        if path in _unhurried:
            connection.execute("PRAGMA synchronous=OFF")


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise ExperimentDeleted(
            f"MLflow at {without_credentials(uri)}: the experiment {name!r} was deleted there. Restore it "
            f"(`{restore}`, with MLFLOW_TRACKING_URI set to this address), or set another `experiment:` in the "
            "workflow file and run it again"
        )
    if found is not None:
        return found.experiment_id
    database = database_file(uri)  # a server knows a place for artifacts itself
    return client.create_experiment(
        name, artifact_folder(database.absolute()).as_uri() if database else None, tags=CLASSIC
    )


def _write(
    client: MlflowClient, experiment_id: str, wanted: TrackedRun, known: Mapping[str, Run], tags: Mapping[str, str]
) -> Run:
    from mlflow.entities import Metric, Param, RunTag

    begin, end = wanted.span or (None, None)
    tags = {**wanted.tags, **_shown_as(wanted), **tags, KEY_TAG: wanted.key}
    run = known.get(wanted.key) or client.create_run(experiment_id, begin, tags, wanted.name)
    run_id, there = run.info.run_id, run.data
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, value, run.info.start_time, 0)
            for name, value in wanted.metrics.items()
            if there.metrics.get(name) != value
        ],
        params=[Param(name, value) for name, value in wanted.params.items() if name not in there.params],
        tags=[RunTag(name, value) for name, value in tags.items() if there.tags.get(name) != value],
    )
    for name, points in wanted.series.items():
        known_steps = (
            {entry.step for entry in client.get_metric_history(run_id, name)} if name in there.metrics else set()
        )
        missing = [Metric(name, value, run.info.start_time, step) for step, value in points if step not in known_steps]
        for start in range(0, len(missing), _MOST_METRICS):
            client.log_batch(run_id, metrics=missing[start : start + _MOST_METRICS])
    if inputs := _unknown(wanted.data, run):
        client.log_inputs(run_id, inputs)
    if wanted.tables or wanted.table_files or wanted.files or wanted.model:
        uploaded = {artifact.path for artifact in client.list_artifacts(run_id)}
        for name, rows in wanted.tables.items():
            if name not in uploaded:
                client.log_table(run_id, {column: [row[column] for row in rows] for column in rows[0]}, name)
        for path in (*wanted.files, *wanted.table_files):
            if path.name not in uploaded:
                client.log_artifact(run_id, str(path))
        if wanted.model is not None and _MODEL not in uploaded:
            with TemporaryDirectory() as folder:
                client.log_artifacts(run_id, str(save_model(wanted.model, Path(folder))), _MODEL)
    if run.info.status != wanted.status:
        client.update_run(run_id, status=wanted.status) if wanted.status == "RUNNING" else client.set_terminated(
            run_id, wanted.status, end
        )
    return run


def _shown_as(wanted: TrackedRun) -> dict[str, str]:
    """The tags by which MLflow shows a description, and artifacts as tables, side by side."""
    names = [*wanted.tables, *(path.name for path in wanted.table_files)]
    tables = {_TABLES_TAG: json.dumps([{"path": name, "type": "table"} for name in names])} if names else {}
    return {**tables, **(note(wanted.note) if wanted.note else {})}


def _unknown(data: Sequence[TrackedData], run: Run) -> list[DatasetInput]:
    """Those that a run does not have yet, as MLflow wants them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    def of(one: TrackedData) -> DatasetInput:
        source = json.dumps({"uri": one.source})
        tag = InputTag("mlflow.data.context", one.context)
        return DatasetInput(Dataset(one.name, one.digest[:_DIGEST], "local", source), [tag])

    there = run.inputs.dataset_inputs if run.inputs else []
    known = {(found.dataset.digest, tag.value) for found in there for tag in found.tags}
    return [of(one) for one in data if (one.digest[:_DIGEST], one.context) not in known]


def save_model(model: TrackedModel, folder: Path) -> Path:
    """A folder that MLflow loads as a model, made in a folder that is there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow.pyfunc's own types, at its import
        import mlflow.pyfunc
        import pandas
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema, TensorSpec

    data = folder / "data"
    data.mkdir()
    for name, path in model.files.items():
        shutil.copyfile(path, data / name)
    for name, document in model.documents.items():
        files.replace_json(data / name, document)
    columns: list[ColSpec | TensorSpec] = [ColSpec("string", name) for name in model.inputs] or [ColSpec("string")]
    example = pandas.DataFrame({name: ["a text"] for name in model.inputs}) if model.inputs else ["a text"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own use of its parts
        mlflow.pyfunc.save_model(
            str(folder / _MODEL),
            loader_module=model.loader,
            data_path=str(data),
            pip_requirements=[f"vocabsem=={version('vocabsem')}"],
            signature=ModelSignature(Schema(columns), Schema([ColSpec("string")])),
            model_config=dict(model.config),
            input_example=example,
        )
    return folder / _MODEL


def _registered(client: MlflowClient, run_id: str, name: str) -> str:
    """The version under which a run's model has a name, the one it has already or a new one."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(name)
    if known := client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        return str(known[0].version)
    source = f"{client.get_run(run_id).info.artifact_uri}/{_MODEL}"
    return str(client.create_model_version(name, source, run_id).version)


def _found(client: MlflowClient, experiment_id: str, condition: str) -> dict[str, Run]:
    """Runs that meet a condition, by their key."""
    found: dict[str, Run] = {}
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], condition, max_results=1000, page_token=token)
        found |= {run.data.tags[KEY_TAG]: run for run in page if KEY_TAG in run.data.tags}
        token = page.token
        if not token:
            return found
