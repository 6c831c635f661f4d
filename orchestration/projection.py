"""What MLflow shall hold of a run, as a file of the run's record, so that MLflow can be filled from files alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from orchestration import files
from orchestration.errors import StoreError
from orchestration.runs import TOLD, RunRecord
from orchestration.store import Artifact
from orchestration.tracking import (
    TrackedData,
    TrackedModel,
    TrackedRun,
    database_file,
    one_at_a_time,
    project,
    without_credentials,
)

_WANTED = "tracked.json"  # what MLflow shall hold


def write_projection(
    record: RunRecord, experiment: str, parent: TrackedRun, children: Iterable[TrackedRun] = ()
) -> None:
    """Write what MLflow shall hold of a run. Its files are files of the record."""
    document = {
        "experiment": experiment,
        "parent": _document(parent, record),
        "children": [_document(run, record) for run in children],
    }
    record.write(_WANTED, document)


def fill(record: RunRecord, uri: str) -> str:
    """Bring MLflow to what the record says, adding what is not there yet; the run's MLflow id.

    Raises TrackingError where MLflow cannot be used, StoreError for a run that has nothing to track yet.
    """
    wanted = record.read(_WANTED)
    if wanted is None:
        raise StoreError(f"{record}: no {_WANTED}; run its workflow again, which writes it")
    children = tuple(_tracked(child, record) for child in wanted["children"])
    parent = _tracked(wanted["parent"], record)
    # of a server too, whose database has no lock here: two drivers would each find no run, and make it
    with one_at_a_time(record.folder / f"{files.TEMPORARY}mlflow.lock"):
        run_id = project(uri, wanted["experiment"], parent, children)
    told = {"experiment": wanted["experiment"], "run_id": run_id, "status": parent.status}
    record.write(TOLD, {**_place(record, uri), **told, "workflow": _workflow(record)})
    return run_id


def is_filled(record: RunRecord, uri: str) -> bool:
    """Whether this MLflow was told all that the record says."""
    told, database = record.read(TOLD), database_file(uri)
    if told is None or (database is not None and not database.is_file()):
        return False
    return all(told.get(name) == value for name, value in _place(record, uri).items())


def is_finished(record: RunRecord, uri: str) -> bool:
    """Whether this MLflow was told the end of a run of this very workflow file.

    Then there is nothing to add as long as every step is cached, and the document need not be made to see that.
    """
    told = record.read(TOLD)
    same = told is not None and (told.get("status"), told.get("workflow")) == ("FINISHED", _workflow(record))
    return same and is_filled(record, uri)


def is_begun(record: RunRecord) -> bool:
    """Whether the run has got so far that there is something to track."""
    return (record.folder / _WANTED).is_file()


def mlflow_run_id(record: RunRecord) -> str | None:
    """The run's id in the MLflow that was told last."""
    told = record.read(TOLD)
    return told["run_id"] if told else None


def _place(record: RunRecord, uri: str) -> dict[str, str]:
    return {"uri": without_credentials(uri), "tracked": files.checksum(record.folder / _WANTED)}


def _workflow(record: RunRecord) -> str:
    return files.checksum(record.folder / "workflow.yaml")


def _document(run: TrackedRun, record: RunRecord) -> dict[str, Any]:
    """As JSON. A table keeps the order of its columns, which MLflow shows, though JSON objects here are sorted."""
    tables = {
        name: {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
        for name, rows in run.tables.items()
    }
    return {
        **asdict(run),
        "tables": tables,
        "files": [path.name for path in run.files],
        "model": _described(run.model, record),
    }


def _described(model: TrackedModel | None, record: RunRecord) -> dict[str, Any] | None:
    """Its files are named from the record's folder: they lie in the same store, which may move."""
    if model is None:
        return None
    return {
        **asdict(model),
        "files": {name: os.path.relpath(path, record.folder) for name, path in model.files.items()},
    }


def _tracked(document: Mapping[str, Any], record: RunRecord) -> TrackedRun:
    tables = {
        name: [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        for name, table in document["tables"].items()
    }
    model = document.get("model")  # records of before have none
    if model is not None:
        paths = {name: (record.folder / path).resolve() for name, path in model["files"].items()}
        for path in paths.values() if record.mirror is not None else ():  # of an artifact, not here before it is read
            Artifact(path.parent, record.mirror).path(path.name)
        model = TrackedModel(**{**model, "inputs": tuple(model["inputs"]), "files": paths})
    named = tuple(record.folder / name for name in document["files"])
    data = tuple(TrackedData(**one) for one in document.get("data", ()))
    return TrackedRun(**{**document, "tables": tables, "files": named, "model": model, "data": data})
