"""What a run will do, and why: each step cached, to run because of something named, or blocked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step, in_order
from orchestration.store import Store, source_digests

State = Literal["cached", "run", "blocked"]
_SHOWN_CHANGES = 3  # more differing fields than this are another piece of work, not a changed one


@dataclass(frozen=True)
class Planned:
    """One step of a plan."""

    step: Step
    state: State
    why: str


def make_plan(targets: Iterable[Step], store: Store) -> list[Planned]:
    """The state of every step the targets need, inputs first. Reads markers and sizes, runs nothing."""
    plan: dict[str, Planned] = {}
    for step in in_order(targets):
        plan[step.key] = _state_of(step, store, plan)
    return list(plan.values())


def _state_of(step: Step, store: Store, plan: Mapping[str, Planned]) -> Planned:
    try:
        artifact = store.find(step)
    except DamagedArtifact as error:
        return Planned(step, "blocked", str(error))
    if artifact is not None:
        return Planned(step, "cached", _drift(step, artifact.manifest["sources"]))
    for source in step.inputs.values():
        if plan[source.key].state == "blocked":
            return Planned(step, "blocked", f"needs {source.label}, which is blocked")
    return Planned(step, "run", _reason(step, store, plan))


def _drift(step: Step, recorded: Mapping[str, str]) -> str:
    """An advisory word where the code that made an artifact has changed under the same version."""
    now = source_digests(step.sources)
    changed = sorted(module for module in now if recorded.get(module) not in (None, now[module]))
    return f"code changed since, version {step.version} kept: {', '.join(changed)}" if changed else ""


def _reason(step: Step, store: Store, plan: Mapping[str, Planned]) -> str:
    """Compare with the nearest artifact of the same step: the fewest differing fields, the newest of equals."""
    known = [_flat(payload) for payload in _payloads(step, store)]
    if not known:
        return "never made"
    mine = _flat(step.payload)
    nearest = min(known, key=lambda other: len(_differences(mine, other)))
    changes = _differences(mine, nearest)
    if len(changes) > _SHOWN_CHANGES:
        return f"never made; the nearest {step.name} differs in {', '.join(changes)}"
    labels = {source.key: source.label for source in step.inputs.values()}
    return "; ".join(_phrase(field, *change, labels, plan) for field, change in changes.items())


def _payloads(step: Step, store: Store) -> list[dict[str, Any]]:
    folder = store.root / step.name
    identities = sorted(folder.glob("*/identity.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [
        json.loads(path.read_text())
        for path in identities
        if (path.parent / "COMMITTED").is_file() and path.parent != store.root / step.folder
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {name: leaf for key, item in value.items() for name, leaf in _flat(item, f"{prefix}.{key}").items()}
    return {prefix.lstrip("."): list(value) if isinstance(value, tuple) else value}


_ABSENT = object()


def _differences(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    fields = sorted(mine.keys() | other.keys())
    pairs = {field: (other.get(field, _ABSENT), mine.get(field, _ABSENT)) for field in fields}
    return {field: (old, new) for field, (old, new) in pairs.items() if old is _ABSENT or new is _ABSENT or old != new}


def _phrase(field: str, old: Any, new: Any, labels: Mapping[str, str], plan: Mapping[str, Planned]) -> str:
    if field.startswith("inputs.") and new is not _ABSENT:
        return f"input {labels[new]} {'will run' if plan[new].state == 'run' else 'is another'}"
    return f"{field.removeprefix('identity.')} {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
