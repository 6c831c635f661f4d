"""What MLflow shall hold of a run, as a file of the run's record, so that MLflow can be filled from files alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedArtifact, StoreError
from orchestration.runs.record import TOLD, RunRecord
from orchestration.store import files
from orchestration.store.artifacts import Artifact
from orchestration.tracking.lock import one_at_a_time
from orchestration.tracking.tracker import Heard, Shown, TrackedData, TrackedModel, TrackedRun, Tracker, View, unheard

_log = logging.getLogger(__name__)
_WANTED = "tracked.json"  # what MLflow shall hold


def write_projection(
    record: RunRecord, experiment: str, parent: TrackedRun, children: Iterable[TrackedRun] = ()
) -> None:
    """Write what MLflow shall hold of a run.

    Args:
        record: of the run; files of the tracked runs are files of it.
        experiment: name of the MLflow experiment.
        parent: the run itself.
        children: its fits or configurations.
    """
    document = {
        "experiment": experiment,
        "parent": _document(parent, record),
        "children": [_document(run, record) for run in children],
    }
    record.write(_WANTED, document)


@dataclass(frozen=True)
class Filled:
    """What MLflow was told of a run.

    Attributes:
        run_id: the run's MLflow id.
        without: names of its MLflow runs whose model was left out, since its files are gone.
    """

    run_id: str
    without: tuple[str, ...]


def fill(record: RunRecord, tracker: Tracker, heard: Heard = unheard) -> Filled:
    """Bring MLflow to what the record says, adding what is not there yet; `heard` hears of each child.

    Raises TrackingError where MLflow cannot be used, StoreError for a run that has nothing to track yet.
    """
    wanted = record.read(_WANTED)
    if wanted is None:
        raise StoreError(f"{record}: no {_WANTED}; run its workflow again, which writes it")
    children = tuple(_tracked(child, record) for child in wanted["children"])
    parent = _tracked(wanted["parent"], record)
    # of a server too, whose database has no lock here: two drivers would each find no run, and make it
    with one_at_a_time(record.folder / f"{files.TEMPORARY}mlflow.lock"):
        shown = tracker.write(wanted["experiment"], parent, children, heard)
    pairs = zip([wanted["parent"], *wanted["children"]], [parent, *children], strict=True)
    without = {
        run.key: document["model"]["files"] for document, run in pairs if document.get("model") and not run.model
    }
    _log.debug("%s: written to %s with %d children", record, tracker.name, len(children))
    told = {"experiment": wanted["experiment"], **asdict(shown), "status": parent.status, "without": without}
    record.write(TOLD, {**_place(record, tracker), **told, "workflow": _workflow(record)})
    return Filled(shown.run_id, tuple(run.name for run in (parent, *children) if run.key in without))


def register(record: RunRecord, tracker: Tracker, key: str, name: str) -> str:
    """Give the model of a tracked run, known by its key, a name in the tracker's registry; its version there.

    Raises TrackingError where there is none or MLflow cannot be used, StoreError for a run without anything to track.
    """
    fill(record, tracker)
    return tracker.register((record.read(TOLD) or {})["experiment"], key, name)


def is_filled(record: RunRecord, tracker: Tracker) -> bool:
    """Whether this MLflow was told all that the record says, as far as it is there."""
    told = record.read(TOLD)
    if told is None or not tracker.is_there():
        return False
    if any(all(path.is_file() for path in _paths(gone, record)) for gone in told.get("without", {}).values()):
        return False  # recomputed since
    return all(told.get(name) == value for name, value in _place(record, tracker).items())


def is_finished(record: RunRecord, tracker: Tracker) -> bool:
    """Whether this MLflow was told the end of a run of this very workflow file.

    Then there is nothing to add as long as every step is cached, and the document need not be made to see that.
    """
    told = record.read(TOLD)
    same = told is not None and (told.get("status"), told.get("workflow")) == ("FINISHED", _workflow(record))
    return same and is_filled(record, tracker)


def is_begun(record: RunRecord) -> bool:
    """Whether the run has got so far that there is something to track."""
    return (record.folder / _WANTED).is_file()


def mlflow_run_id(record: RunRecord, tracker: Tracker | None = None) -> str | None:
    """The run's id in an MLflow, None where another was told last; without `tracker`, in the one that was."""
    found = shown(record, tracker)
    return found.run_id if found else None


def shown(record: RunRecord, tracker: Tracker | None = None) -> Shown | None:
    """Where an MLflow shows the run, as `mlflow_run_id`."""
    told = record.read(TOLD)
    if not told or (tracker is not None and told["uri"] != tracker.name):
        return None
    return Shown(told["run_id"], told["page"])


def _place(record: RunRecord, tracker: Tracker) -> dict[str, str]:
    return {"uri": tracker.name, "tracked": files.checksum(record.folder / _WANTED)}


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
        "table_files": [path.name for path in run.table_files],
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
    model = document["model"]
    if model is not None:
        paths = dict(zip(model["files"], _paths(model["files"], record), strict=True))
        there = all(_is_there(path, record) for path in paths.values())
        model = TrackedModel(**{**model, "inputs": tuple(model["inputs"]), "files": paths}) if there else None
    named = {name: tuple(record.folder / file for file in document[name]) for name in ("files", "table_files")}
    data = tuple(TrackedData(**one) for one in document["data"])
    view = (
        View(tuple(found["params"]), tuple(found["metrics"]), found["order"]) if (found := document["view"]) else None
    )
    span = tuple(found) if (found := document["span"]) else None
    parts = {"tables": tables, **named, "model": model, "data": data, "span": span, "view": view}
    return TrackedRun(**{**document, **parts})


def _paths(files: Mapping[str, str], record: RunRecord) -> list[Path]:
    return [Path(os.path.normpath(record.folder / path)) for path in files.values()]


def _is_there(path: Path, record: RunRecord) -> bool:
    """Whether a model's file is there. One of an artifact in a bucket is not here before it is read: it is brought."""
    try:
        if record.mirror is not None and path.is_relative_to(record.mirror.root):  # a user's own method lies elsewhere
            Artifact(path.parent, record.mirror).path(path.name)
        return path.is_file()
    except DamagedArtifact:
        return False
