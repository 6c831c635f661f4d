"""What a run will do, and why: each step cached, to run because of something named, or blocked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step, folder_of, in_order, key_of
from orchestration.runs.record import runs
from orchestration.store.artifacts import Store, source_digests

State = Literal["cached", "run", "blocked"]
_SHOWN_CHANGES = 3  # more differing fields than this are another piece of work, not a changed one
# Artifacts of a kind of step that are read when one to run is explained: a plan of thousands stays a matter of seconds.
_COMPARED = 256
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
    """What was made before: by which run, from the records of runs, and the artifacts of a kind of step.

    Each is read when the first step asks for it, once for a whole plan.
    """

    store: Store
    _identities: dict[str, list[Path]] = field(default_factory=dict)

    @cached_property
    def _runs(self) -> dict[str, str]:
        return {key: record.run_id for record in reversed(runs(self.store)) for key in record.keys_made()}

    def run_of(self, key: str) -> str | None:
        """The run that made a step last, or None."""
        return self._runs.get(key)

    def identities(self, step: str) -> list[Path]:
        """identity.json of the newest artifacts of a kind of step, the newest first."""
        if step not in self._identities:
            found = [artifact.folder / "identity.json" for artifact in self.store.artifacts(step)]
            times = {path: path.stat().st_mtime for path in found if path.is_file()}
            self._identities[step] = sorted(times, key=lambda path: times[path], reverse=True)[:_COMPARED]
        return self._identities[step]


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
    found = nearest(step.payload, made)
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
        return _contents(self.changes)


def nearest(payload: Mapping[str, Any], made: MadeBefore) -> Nearest | None:
    """The nearest other artifact to what a step's payload asks for, or None where the step has no other.

    Of a kind of step the newest few hundred artifacts are compared.
    """
    mine, after = folder_of(payload["step"], key_of(payload)), _flat(payload)
    others = [
        path for path in made.identities(payload["step"]) if f"{path.parent.parent.name}/{path.parent.name}" != mine
    ]
    if not others:
        return None
    best = min(others, key=lambda path: _distance(_payload(path), after))
    return Nearest(
        str(best.parent.relative_to(made.store.root)), dict(sorted(_differences(_payload(best), after).items()))
    )


@lru_cache(maxsize=100_000)
def _payload(identity: Path) -> dict[str, Any]:
    """The fields of a committed artifact's payload, which never change: many steps are compared with each."""
    return _flat(json.loads(identity.read_text()))


def _distance(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[int, int]:
    """In how many contents two payloads differ, and in how many fields."""
    changes = _differences(before, after)
    return len(_contents(changes)), len(changes)


ABSENT = object()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields in which two payloads differ, as dotted names, with both values; ABSENT for a field one lacks."""
    return dict(sorted(_differences(_flat(old), _flat(new)).items()))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The same of the flat fields, in no order."""
    found = {
        name: (value, after.get(name, ABSENT)) for name, value in before.items() if after.get(name, ABSENT) != value
    }
    return found | {name: (ABSENT, value) for name, value in after.items() if name not in before}


def _contents(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [
        name
        for name, (old, new) in changes.items()
        if name.startswith("identity.") and is_digest(old) and is_digest(new)
    ]


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
