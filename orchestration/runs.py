"""The record of a run: files in <store>/runs/<run_id>/, written as the run goes on. Results are files first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestration import files
from orchestration.errors import StoreError
from orchestration.graph import Step, in_order, run_id_of
from orchestration.store import Store

RUNS = "runs"  # the folder of the store that holds them


@dataclass(frozen=True)
class RunRecord:
    """The folder of one run. A run is named by its step keys, so running the same workflow again is the same run."""

    run_id: str
    folder: Path

    def event(self, kind: str, step: Step, details: dict[str, Any]) -> None:
        """Append a line to events.jsonl: one write, so that a killed driver leaves whole lines."""
        line = {"time": _now(), "event": kind, "step": step.label, "key": step.key, **details}
        path = self.folder / "events.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StoreError(f"{path}: cannot be written ({error.strerror}); make room and run again") from error

    def keys_made(self) -> list[str]:
        """Keys of the steps that this run computed. A last line that was cut short is passed over."""
        path = self.folder / "events.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        return [event["key"] for event in map(json.loads, lines) if event["event"] == "ran"]

    def write(self, name: str, document: Any) -> None:
        files.replace_json(self.folder / name, document)

    def read(self, name: str) -> Any:
        """A document of the record, or None where it was not written yet."""
        path = self.folder / name
        return json.loads(path.read_text()) if path.is_file() else None


def open_run(store: Store, targets: Iterable[Step], workflow: str) -> RunRecord:
    """The record of the run these steps make: its folder with workflow.yaml (text as given) and graph.json."""
    targets = list(targets)
    run_id = run_id_of(targets)
    record = RunRecord(run_id, store.root / RUNS / run_id)
    known = record.folder / "workflow.yaml"
    if record.read("graph.json") is None or known.read_text(encoding="utf-8") != workflow:  # other words, same work
        record.folder.mkdir(parents=True, exist_ok=True)
        (record.folder / "workflow.yaml").write_text(workflow, encoding="utf-8")
        steps = [{"label": step.label, "key": step.key, **step.payload} for step in in_order(targets)]
        record.write("graph.json", {"run_id": run_id, "started": _now(), "steps": steps})
    return record


def runs(store: Store) -> list[RunRecord]:
    """Every run of the store, the one that was run last first."""
    folders = [path.parent for path in (store.root / RUNS).glob("*/graph.json")]
    return [RunRecord(folder.name, folder) for folder in sorted(folders, key=_last_run, reverse=True)]


def _last_run(folder: Path) -> int:
    """graph.json is written when a run begins for the first time, results.json whenever it ends."""
    return max(path.stat().st_mtime_ns for name in ("graph", "results") if (path := folder / f"{name}.json").is_file())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
