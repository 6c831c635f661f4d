"""What a run will do, and why: each step cached, to run because of something named, or blocked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step, folder_of, in_order, key_of
from orchestration.runs.record import runs
from orchestration.store.artifacts import Store, source_digests

State = Literal["cached", "run", "blocked"]
_SHOWN_CHANGES = 3  # more differing fields than this are another piece of work, not a changed one
_DIGEST = re.compile(r"[0-9a-f]{32,}")
_DIGEST_SHOWN = 8  # of its characters


@dataclass(frozen=True)
class Planned:
    """One step of a plan. `nearest`: of a step to run, the artifact most like what it will make, if there is one."""

    step: Step
    state: State
    why: str
    nearest: Nearest | None = None


def make_plan(targets: Iterable[Step], store: Store) -> list[Planned]:
    """The state of every step the targets need, inputs first. Reads markers and sizes, runs nothing."""
    plan: dict[str, Planned] = {}
    steps = list(in_order(targets))
    store = store.looking(step.folder for step in steps)
    made = MadeBefore(store)
    for step in steps:
        plan[step.key] = _state_of(step, store, plan, made)
    return list(plan.values())


@dataclass(frozen=True)
class MadeBefore:
    """Which run made a step, by the records of runs; they are read when the first step is asked for."""

    store: Store

    @cached_property
    def _runs(self) -> dict[str, str]:
        return {key: record.run_id for record in reversed(runs(self.store)) for key in record.keys_made()}

    def run_of(self, key: str) -> str | None:
        """The run that made a step last, or None."""
        return self._runs.get(key)


def _state_of(step: Step, store: Store, plan: Mapping[str, Planned], made: MadeBefore) -> Planned:
    try:
        artifact = store.find(step)
    except DamagedArtifact as error:
        return Planned(step, "blocked", str(error))
    if artifact is not None:
        return Planned(step, "cached", _drift(step, artifact.manifest["sources"]))
    for source in step.inputs.values():
        if plan[source.key].state == "blocked":
            return Planned(step, "blocked", f"needs {source.label}, which is blocked")
    found = nearest(step.payload, store)
    if (run_id := made.run_of(step.key)) is not None:
        return Planned(step, "run", f"its folder {step.folder} is gone; run {run_id} had made it", found)
    return Planned(step, "run", _reason(step, found, plan), found)


def _drift(step: Step, recorded: Mapping[str, str]) -> str:
    """An advisory word where the code that made an artifact has changed under the same version."""
    now = source_digests(step.sources)
    changed = sorted(module for module in now if recorded.get(module) not in (None, now[module]))
    return f"code changed since, version {step.version} kept: {', '.join(changed)}" if changed else ""


def _reason(step: Step, found: Nearest | None, plan: Mapping[str, Planned]) -> str:
    if found is None:
        return "never made"
    if found.contents:
        return f"never made for this {' and '.join(name.rpartition('.')[2] for name in found.contents)}"
    labels = {source.key: source.label for source in step.inputs.values()}
    phrases = [_phrase(field, *change, labels, plan) for field, change in found.changes.items()]
    if len(phrases) > _SHOWN_CHANGES:
        named, more = "; ".join(phrases[:_SHOWN_CHANGES]), len(phrases) - _SHOWN_CHANGES
        return f"never made; from the nearest {step.name}: {named}; {more} more"
    return "; ".join(phrases)


@dataclass(frozen=True)
class Nearest:
    """The artifact of the same step that differs in the fewest contents, then fields; of equals the newest.

    Attributes:
        folder: below the store.
        changes: field -> (its value there, the value asked about), either of them ABSENT where it has no such field.
    """

    folder: str
    changes: Mapping[str, tuple[Any, Any]]

    @property
    def contents(self) -> list[str]:
        """Fields that hold the digest of a content, a model's or a file's, and differ: it is of another thing."""
        return [
            field
            for field, (old, new) in self.changes.items()
            if field.startswith("identity.") and is_digest(old) and is_digest(new)
        ]


def nearest(payload: Mapping[str, Any], store: Store) -> Nearest | None:
    """The nearest other artifact to what a step's payload asks for, or None where the step has no other."""
    mine = folder_of(payload["step"], key_of(payload))
    found = [artifact.folder / "identity.json" for artifact in store.artifacts(payload["step"])]
    identities = sorted((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime, reverse=True)
    others = [
        Nearest(folder, differences(_payload(path), payload))
        for path in identities
        if (folder := str(path.parent.relative_to(store.root))) != mine
    ]
    return min(others, key=lambda other: (len(other.contents), len(other.changes)), default=None)


@lru_cache(maxsize=100_000)
def _payload(identity: Path) -> dict[str, Any]:
    """The payload of a committed artifact, which never changes: many steps are compared with each."""
    return json.loads(identity.read_text())


ABSENT = object()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two payloads differ, as dotted names, with both values; ABSENT for a field one lacks."""
    before, after = _flat(old), _flat(new)
    fields = sorted(before.keys() | after.keys())
    pairs = {field: (before.get(field, ABSENT), after.get(field, ABSENT)) for field in fields}
    return {field: (old, new) for field, (old, new) in pairs.items() if old is ABSENT or new is ABSENT or old != new}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {name: leaf for key, item in value.items() for name, leaf in _flat(item, f"{prefix}.{key}").items()}
    return {prefix.lstrip("."): list(value) if isinstance(value, tuple) else value}


def _phrase(field: str, old: Any, new: Any, labels: Mapping[str, str], plan: Mapping[str, Planned]) -> str:
    if field.startswith("inputs.") and new is not ABSENT:
        return f"input {labels[new]} {'will run' if plan[new].state == 'run' else 'is another'}"
    return f"{field.removeprefix('identity.')} {shown(old)} -> {shown(new)}"


def shown(value: Any) -> str:
    """A field's value for a person to read."""
    if is_digest(value):
        return f"{value[:_DIGEST_SHOWN]}…"
    return "(absent)" if value is ABSENT else json.dumps(value, ensure_ascii=False)


def is_digest(value: Any) -> bool:
    """Whether a field's value is the digest of a content: one that differs tells a person nothing."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
