"""What a workflow needs of a cluster, read off the steps that will run: files, bytes, workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.graph import Resources, Step
from orchestration.ray_backend.preflight import Needs
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import Facts
from workflows.inputs.models import model_files
from workflows.inputs.row_files import read_columns

PACKAGES = ("vocabsem_core", "orchestration", "workflows", "vocabsem")
_BYTES = {"float16": 2, "float32": 4}


def needs_of(steps: Sequence[Step], store: Store, missing: Sequence[str] = ()) -> Needs:
    """What the steps need that will run; `missing` is what is known to be missing already."""
    return Needs(
        store=store.root,
        steps=steps,
        workers=dict(_workers(steps)),
        bytes=estimated_bytes(steps, store),
        files=files_read(steps),
        source=PACKAGES,
        missing=missing,
        mirror=store.mirror,
    )


def files_read(steps: Iterable[Step]) -> dict[str, int]:
    """Path -> bytes of every file outside the store that a step reads, on whatever node."""
    paths: set[Path] = set()
    for step in steps:
        places: Mapping[str, Any] = {**step.local, **(step.setup or {})}
        paths.update(Path(places[name]) for name in ("path", "method_file") if places.get(name))
        paths.update(map(Path, places.get("paths", ())))
        if "folder" in places:
            paths.update(model_files(Path(places["folder"])))
    return {str(path): path.stat().st_size for path in sorted(paths)}


def estimated_bytes(steps: Iterable[Step], store: Store) -> int:
    """What the large artifacts will take: states (rows x layers x width), a head and its basis (tokens x width)."""
    total = 0
    for step in steps:
        if step.name == "encode" and "texts" in step.inputs:
            width = step.local["width"]
            row = len(step.identity["layers"]) * width * _BYTES[step.identity["store_dtype"]]
            total += _rows(step.inputs["texts"], store) * row
        elif step.name in ("head", "basis"):
            head = step if step.name == "head" else step.inputs["head"]
            total += head.identity["kept_rows"] * head.local["width"] * _BYTES["float32"]
    return total


def _rows(texts: Step, store: Store) -> int:
    """Of texts; where they are not in the store yet, of what they are made from: then never too few."""
    if (artifact := store.find(texts)) is not None:
        return artifact.rows
    if "texts" in texts.inputs:  # those that are left beside demonstrations
        return _rows(texts.inputs["texts"], store)
    if "texts" in texts.identity:  # those that say nothing, written out
        return len(texts.identity["texts"])
    path, column = Path(texts.local["path"]), next(iter(texts.local["columns"].values()))
    facts = Facts(store.root / "facts.json")
    rows = facts.get(f"rows of {column}", [path], lambda: len(read_columns(path, [column]).values[column]))
    return min(rows, texts.identity["limit"] or rows)


def _workers(steps: Iterable[Step]) -> Iterable[tuple[str, Resources]]:
    """Steps whose workers reserve places of their own."""
    for step in steps:
        local = step.local
        if local.get("executor", "inline") == "inline":
            continue
        if step.name in ("sweep", "pretrain"):
            yield step.label, Resources(local["cores"], local["gpus"], local.get("workers"))
        elif step.name == "finetune":
            yield step.label, Resources(local["cores_per_trainer"], local["gpus_per_trainer"], local["trainers"] or 1)
        else:  # the search of a finetuning: a trial on each core, or GPU
            yield step.label, Resources(1.0, local["gpus_per_trainer"])
