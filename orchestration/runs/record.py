"""The record of a run: files in <store>/runs/<run_id>/, written as the run goes on. Results are files first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from orchestration.errors import StoreError
from orchestration.graph import Step, in_order, run_id_of
from orchestration.store import files
from orchestration.store.artifacts import Store
from orchestration.store.mirror import Mirror
from orchestration.store.writer import unwritable

RUNS = "runs"  # the folder of the store that holds them
TOLD = "mlflow.json"  # where a run was told to MLflow last: of this machine alone
_EVENTS = "events.jsonl"
_RESULTS = "results.json"  # lines of the table; an empty list where a run failed before it had one
_MADE = "made.json"  # what was computed the last time that anything was
_GRAPH = "graph.json"  # a run is there when this file is
_PROCESS = uuid4().hex[:8]  # unlike any other's


@dataclass(frozen=True)
class RunRecord:
    """The folder of one run. A run is named by its step keys, so running the same workflow again is the same run.

    `mirror`: of the bucket it is in, where it is in one; its documents are brought and put whole (`download`, `push`).
    """

    run_id: str
    folder: Path
    mirror: Mirror | None = None

    def __str__(self) -> str:
        return str(self.folder) if self.mirror is None else self.mirror.url(self.folder)

    def download(self, pattern: str = "*") -> None:
        """Bring from the bucket what changed there of the documents with such names."""
        if self.mirror is not None:
            self.mirror.pull(f"{RUNS}/{self.run_id}/", pattern)

    def push(self) -> None:
        """Put into the bucket what changed here."""
        if self.mirror is not None:
            self.mirror.push(self.folder, without=TOLD, last=_GRAPH)

    def event(self, kind: str, step: Step, details: dict[str, Any]) -> None:
        """Append a line to events.jsonl: one write, so that a killed driver leaves whole lines. After one that was cut
        all the same, by a full disk or a power cut, a new line is begun.

        Objects cannot be appended to: a run in a bucket has a file for each process that drives it.
        """
        line = {"time": _now(), "event": kind, "step": step.label, "key": step.key, **details}
        path = self.folder / (_EVENTS if self.mirror is None else f"events-{_PROCESS}.jsonl")
        try:
            with open(path, "a+b") as file:
                text = f"{json.dumps(line, ensure_ascii=False)}\n"
                file.write((text if _ends_a_line(file) else f"\n{text}").encode())
        except OSError as error:
            raise unwritable(path, error) from error

    def keys_made(self) -> list[str]:
        """Keys of the steps that this run computed. A line that was cut short is passed over."""
        self.download("events*.jsonl")
        lines = [line for path in sorted(self.folder.glob("events*.jsonl")) for line in path.read_bytes().split(b"\n")]
        events = [event for line in lines if (event := _event(line)) is not None]
        return [event["key"] for event in events if event["event"] == "ran"]

    def write_made(self, keys: Sequence[str]) -> None:
        """Note the keys of the steps that it has computed now."""
        self.write(_MADE, {"ended": _now(), "keys": list(keys)})

    def steps(self) -> list[dict[str, Any]]:
        """Each step of the graph: its label, subject, key and what the key is made of.

        Raises StoreError for a record of an earlier version, in which steps have no subject.
        """
        steps = self.read(_GRAPH)["steps"]
        if not all("subject" in step for step in steps):
            raise StoreError(
                f"run {self.run_id} was recorded by an earlier version; remove {self} and run its workflow again "
                "(artifacts are kept)"
            )
        return steps

    def made_last(self) -> list[str]:
        """Keys of the steps that it computed the last time it computed any; of every time where it never ended."""
        found = self.read(_MADE)
        return found["keys"] if found is not None else self.keys_made()

    @property
    def has_results(self) -> bool:
        """Whether it ever came to a result."""
        return bool(self.read(_RESULTS))

    def write(self, name: str, document: Any) -> None:
        """Write a document of the record, as JSON. Raises StoreError where it cannot be written."""
        self.write_bytes(name, files.json_bytes(document))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a document of any other kind. Raises StoreError where it cannot be written."""
        try:
            files.replace_bytes(self.folder / name, data)
        except OSError as error:
            raise unwritable(self.folder / name, error) from error

    def read(self, name: str) -> Any:
        """A document of the record, or None where it was not written yet."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.is_file() else None


def open_run(store: Store, targets: Iterable[Step], workflow: str) -> RunRecord:
    """The record of the run these steps make: its folder with workflow.yaml (text as given) and graph.json."""
    targets = list(targets)
    run_id = run_id_of(targets)
    record = RunRecord(run_id, store.root / RUNS / run_id, store.mirror)
    record.download()
    known, text = record.folder / "workflow.yaml", workflow.encode()
    same_words = known.is_file() and known.read_bytes() == text  # other words may name the same work
    if not same_words or record.read(_GRAPH) is None:
        record.write_bytes(known.name, text)
        steps = [
            {"label": step.label, "subject": dict(step.subject), "key": step.key, **step.payload}
            for step in in_order(targets)
        ]
        record.write(_GRAPH, {"run_id": run_id, "started": _now(), "steps": steps})
    record.push()
    return record


def runs(store: Store) -> list[RunRecord]:
    """Every run of the store, the one that was run last first."""
    keys = store.mirror.pull(f"{RUNS}/", _GRAPH, _RESULTS) if store.mirror is not None else []
    folders = {folder for folder in files.folders(store.root, RUNS) if (folder / _GRAPH).is_file()}
    if store.mirror is not None:
        folders &= {(store.root / key).parent for key in keys if key.endswith(f"/{_GRAPH}")}
    return [RunRecord(folder.name, folder, store.mirror) for folder in sorted(folders, key=_last_run, reverse=True)]


def _last_run(folder: Path) -> int:
    """graph.json is written when a run begins for the first time, results.json whenever it ends."""
    return max(path.stat().st_mtime_ns for name in (_GRAPH, _RESULTS) if (path := folder / name).is_file())


def _ends_a_line(file: BinaryIO) -> bool:
    """Whether what follows at the end of a file begins a line."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(end - 1, 0))
    return file.read(1) in (b"", b"\n")


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
