"""What the steps of a plan will take, from earlier steps that did the same work with another seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step, folder_of
from orchestration.runs.plan import ABSENT, Planned
from orchestration.store.artifacts import Artifact, Store

_COSTLESS = "seed"  # the one field of an identity that never changes what a step costs
_ALIKE = 2.0  # inputs whose bytes differ by less than this factor take about the same time


@dataclass(frozen=True)
class Estimate:
    """Of the steps of a plan that will run.

    Attributes:
        to_run: how many they are.
        known: of how many an earlier step tells the cost; the rest is of these alone.
        seconds: of their own work, one after the other: no start of processes, no loading of models.
        bytes: of their artifacts.
    """

    to_run: int
    known: int
    seconds: float
    bytes: int


def estimate(plan: Sequence[Planned], store: Store) -> Estimate:
    """What is known of the cost of a plan, whose steps come inputs first.

    A step costs what its nearest artifact did where the two differ in the seed and in inputs of about the same bytes
    alone. Any other step has no estimate: another model, method, setting or number of rows may cost many times as much.
    """
    sizes: dict[str, int | None] = {}
    to_run = [planned for planned in plan if planned.state == "run"]
    cached = {planned.step.key for planned in plan if planned.state == "cached"}
    found: list[Artifact] = []
    for planned in to_run:
        for source in planned.step.inputs.values():
            if source.key in cached and source.key not in sizes:
                sizes[source.key] = _bytes(_artifact(source.folder, store))
        artifact = _like(planned, sizes, store)
        sizes[planned.step.key] = _bytes(artifact)
        if artifact is not None:
            found.append(artifact)
    seconds = sum(_seconds(artifact) for artifact in found)
    return Estimate(len(to_run), len(found), seconds, sum(_bytes(artifact) or 0 for artifact in found))


def estimate_text(told: Estimate) -> str:
    """One line for a person to read; empty where nothing runs."""
    if not told.to_run:
        return ""
    if not told.known:
        return "time and bytes: no estimate, since no earlier step did the same work"
    others = told.to_run - told.known
    left_out = f"; no estimate for the other {others}" if others else ""
    amount = f"about {told.seconds:,.1f} s of work and {told.bytes:,} bytes"
    return f"{amount} for {told.known} of the {told.to_run} to run, from earlier steps with the same work{left_out}"


def _like(planned: Planned, sizes: dict[str, int | None], store: Store) -> Artifact | None:
    """The nearest artifact of a step, where that cost what the step will."""
    if planned.nearest is None:
        return None
    for field, (old, _) in planned.nearest.changes.items():
        if field.startswith("inputs."):
            step = planned.step.inputs.get(field.removeprefix("inputs."))
            if old is ABSENT or step is None or not _are_alike(_bytes(_earlier(step, old, store)), sizes.get(step.key)):
                return None
        elif field.rpartition(".")[2] != _COSTLESS:
            return None
    return _artifact(planned.nearest.folder, store)


def _earlier(step: Step, key: str, store: Store) -> Artifact | None:
    """What stood in the place of an input: a role is nearly always filled by one kind of step."""
    return _artifact(folder_of(step.name, key), store)


def _are_alike(old: int | None, new: int | None) -> bool:
    return old is not None and new is not None and max(old, new) < _ALIKE * min(old, new)


def _artifact(folder: str, store: Store) -> Artifact | None:
    try:
        artifact = store.at(folder)
        if artifact is not None:
            artifact.path("provenance.json")
        return artifact
    except DamagedArtifact:
        return None


def _bytes(artifact: Artifact | None) -> int | None:
    return None if artifact is None else sum(entry["bytes"] for entry in artifact.manifest["files"].values())


def _seconds(artifact: Artifact) -> float:
    told = artifact.json("provenance.json")
    return told.get("work_seconds", told["seconds"])
