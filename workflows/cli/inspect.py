"""What the store knows of an artifact or a run: its parts, and why it is the one it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import folder_of
from orchestration.runs.drawing import Branch, lines_of
from orchestration.runs.lookup import by_folder
from orchestration.runs.plan import ABSENT, MadeBefore, nearest, shown
from orchestration.runs.record import RunRecord, runs
from orchestration.store.artifacts import Artifact, Store
from orchestration.tracking.projection import mlflow_run_id
from workflows.results.model import read_stored
from workflows.results.table import table

_SHORT = 24  # characters of a value in a tree


def artifact_document(artifact: Artifact, store: Store) -> dict[str, Any]:
    """Everything an artifact says of itself. Raises DamagedArtifact where a file is not as it was committed."""
    for damage in artifact.damages(every_byte=False):
        raise DamagedArtifact(damage)
    payload, manifest = artifact.json("identity.json"), artifact.manifest
    known = by_folder(store)
    return {
        "step": payload["step"],
        "key": manifest["key"],
        "version": payload["version"],
        "folder": str(artifact),
        "rows": artifact.rows,
        "identity": payload["identity"],
        "inputs": {role: _input(key, known) for role, key in payload["inputs"].items()},
        "files": {name: entry["bytes"] for name, entry in manifest["files"].items()},
        "numerics": manifest["numerics"],
        "provenance": artifact.json("provenance.json"),
    }


def _input(key: str, known: Mapping[str, Artifact]) -> dict[str, str | None]:
    return {"key": key, "folder": str(found) if (found := _of_key(key, known)) else None}


def _of_key(key: str, known: Mapping[str, Artifact]) -> Artifact | None:
    """An input is known by its key alone; its step is that of the folder with this name."""
    steps = {place.partition("/")[0] for place in known}
    return next((known[place] for step in sorted(steps) if (place := folder_of(step, key)) in known), None)


def artifact_text(document: Mapping[str, Any]) -> str:
    """An artifact for a person to read."""
    head = {name: document[name] for name in ("key", "version", "folder", "rows")}
    inputs = {
        role: entry["folder"] or f"{entry['key']} (not in this store)" for role, entry in document["inputs"].items()
    }
    files = {name: f"{size:,} bytes" for name, size in document["files"].items()}
    parts = [
        [document["step"], *_fields(head)],
        ["identity", *_fields(document["identity"])],
        ["inputs", *_fields(inputs)],
        ["files", *_fields(files)],
        ["numerics", *(line for numerics in document["numerics"] for line in _fields(numerics))],
        ["provenance", *_fields(document["provenance"])],
    ]
    return "\n".join(line for part in parts if len(part) > 1 for line in part)


def run_document(record: RunRecord) -> dict[str, Any]:
    """What the record of a run holds."""
    graph = record.read("graph.json")
    return {
        "run_id": record.run_id,
        "folder": str(record),
        "started": graph["started"],
        "steps": len(graph["steps"]),
        "keys": {folder_of(step["step"], step["key"]): step["label"] for step in graph["steps"]},
        "workflow": (record.folder / "workflow.yaml").read_text(encoding="utf-8"),
        "results": record.read("results.json") or [],
        "mlflow_run_id": mlflow_run_id(record),
    }


def run_text(document: Mapping[str, Any]) -> str:
    """A run for a person to read."""
    head = {name: document[name] for name in ("folder", "started")}
    head["steps"] = f"{document['steps']}; their keys, for `vocabsem why KEY`, are below"
    head["mlflow run"] = document["mlflow_run_id"] or "none; `vocabsem sync` creates it"
    lines = [f"run {document['run_id']}", *_fields(head), "", document["workflow"].rstrip(), ""]
    lines += [*_fields(document["keys"]), ""]
    return "\n".join(lines) + "\n" + (table(read_stored(document["results"])) or "no results yet")


def why_document(artifact: Artifact, store: Store) -> dict[str, Any]:
    """What made an artifact the one it is: its fields, its inputs, its nearest other, and the runs that reach it."""
    payload, key = artifact.json("identity.json"), artifact.manifest["key"]
    other = nearest(payload, MadeBefore(store))
    reached = [(record, step) for record in runs(store) for step in record.read("graph.json")["steps"]]
    return {
        "step": payload["step"],
        "key": key,
        "version": payload["version"],
        "identity": payload["identity"],
        "inputs": _inputs(payload, by_folder(store)),
        "nearest": None if other is None else {"folder": other.folder, "changes": changes_document(other.changes)},
        "runs": [{"run_id": record.run_id, "label": step["label"]} for record, step in reached if step["key"] == key],
    }


def _inputs(payload: Mapping[str, Any], known: Mapping[str, Artifact]) -> dict[str, Any]:
    found = {role: (key, _of_key(key, known)) for role, key in sorted(payload["inputs"].items())}
    return {role: _node(key, artifact, known) for role, (key, artifact) in found.items()}


def _node(key: str, artifact: Artifact | None, known: Mapping[str, Artifact]) -> dict[str, Any]:
    if artifact is None:
        return {"step": None, "key": key, "identity": {}, "inputs": {}}
    payload = artifact.json("identity.json")
    return {
        "step": payload["step"],
        "key": key,
        "identity": payload["identity"],
        "inputs": _inputs(payload, known),
    }


def why_text(document: Mapping[str, Any]) -> str:
    """The answer to `why` for a person to read."""
    name = folder_of(document["step"], document["key"])
    lines = [f"{name} is computed from these fields and inputs", *_fields({"version": document["version"]})]
    lines += _fields(document["identity"])
    if document["inputs"]:
        lines += lines_of(Branch("inputs", _branches(document["inputs"], set())))
    if document["nearest"] is None:
        lines.append(f"no other {document['step']} in this store")
    else:
        lines.append(f"the most similar is {document['nearest']['folder']}; changes from it to this one")
        lines += [f"  {line}" for line in changes_text(document["nearest"]["changes"])]
    runs_of = [f"  {entry['run_id']}   as {entry['label']!r}" for entry in document["runs"]]
    return "\n".join([*lines, "runs that use it" if runs_of else "no run of this store uses it", *runs_of])


def _branches(inputs: Mapping[str, Any], seen: set[str]) -> list[Branch]:
    """A step with inputs is unfolded once."""
    found = []
    for role, node in inputs.items():
        text = f"{role}: {_name(node)}"
        if node["key"] in seen and node["inputs"]:
            found.append(Branch(f"{text}   (as above)"))
        else:
            seen.add(node["key"])
            found.append(Branch(text, _branches(node["inputs"], seen)))
    return found


def _name(node: Mapping[str, Any]) -> str:
    if node["step"] is None:
        return f"{node['key'][:16]} (not in this store)"
    fields = ", ".join(f"{name} {_short(value)}" for name, value in node["identity"].items())
    return f"{folder_of(node['step'], node['key'])}   {fields}"


def _short(value: Any) -> str:
    """A field's value in a few characters."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} {_short(item)}" for name, item in value.items()) + "}"
    text = shown(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def changes_document(changes: Mapping[str, tuple[Any, Any]]) -> list[dict[str, Any]]:
    """Differing fields as JSON; a side that lacks the field has no entry."""
    return [
        {"field": field, **{side: value for side, value in (("old", old), ("new", new)) if value is not ABSENT}}
        for field, (old, new) in changes.items()
    ]


def changes_text(changes: list[dict[str, Any]]) -> list[str]:
    """One line a differing field, old -> new."""
    return [
        f"{change['field'].removeprefix('identity.')} "
        f"{shown(change.get('old', ABSENT))} -> {shown(change.get('new', ABSENT))}"
        for change in changes
    ]


def _fields(values: Mapping[str, Any]) -> list[str]:
    """Aligned lines, one a field."""
    width = max((len(name) for name in values), default=0)
    return [
        f"  {name:{width}}   {value if isinstance(value, str) and chr(10) not in value else shown(value)}"
        for name, value in values.items()
    ]
