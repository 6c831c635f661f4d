"""What results cost: seconds of the steps' own work, bytes, and search trials, read from the artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step, in_order
from orchestration.store.artifacts import Artifact, Store
from workflows.results.model import Costs, mean, total

_PARTS = ("encode", "basis", "search", "fit")  # that steps declare
_Entry = tuple[Mapping[str, Any], Mapping[str, int]]  # provenance, and file -> bytes


@dataclass
class Ledger:
    """Reads what steps took, each once: many results share the encoding."""

    store: Store
    _read: dict[str, _Entry | None] = field(default_factory=dict)

    def costs(self, fits: Mapping[int, Step]) -> Costs:
        """Of one fit and all that it reads, the mean over seeds."""
        by_seed = [self._costs(step) for step in fits.values()]
        seconds = {name: mean([getattr(one, name) for one in by_seed]) for name in _PARTS}
        peaks = {name: _most([getattr(one, name) for one in by_seed]) for name in ("peak_rss", "peak_cuda")}
        return Costs(**seconds, **peaks, states_bytes=by_seed[0].states_bytes, fit_bytes=by_seed[0].fit_bytes)

    def trials(self, fits: Mapping[int, Step]) -> int | None:
        """Settings that were tried out, counted in the record of the search; None where there was none."""
        found = self._trials(fits)
        return None if found is None else len(found)

    def trial_rows(self, fits: Mapping[int, Step]) -> int | None:
        """Rows that a trial was trained on; None where no search says so, for all were."""
        return next((trial["rows"] for trial in self._trials(fits) or () if "rows" in trial), None)

    def _trials(self, fits: Mapping[int, Step]) -> list[dict[str, Any]] | None:
        """The record of the search."""
        search = next((step for step in in_order([next(iter(fits.values()))]) if step.cost == "search"), None)
        artifact = self.store.find(search) if search is not None else None
        return artifact.json("trials.json")["trials"] if artifact is not None else None

    def _costs(self, fit: Step) -> Costs:
        steps = list(in_order([fit]))
        seconds: dict[str, float | None] = dict.fromkeys(_PARTS, 0.0)
        for step in steps:
            if step.cost and step.cost not in _PARTS:
                raise ValueError(f"step {step.name!r} has cost {step.cost!r}; expected one of {', '.join(_PARTS)}")
            if step.cost:
                seconds[step.cost] = total(seconds[step.cost], self._told(step, "work_seconds"))
        states = [self._bytes(step) for step in steps if step.cost == "encode"]
        worked = [step for step in steps if step.cost in ("search", "fit")]
        peaks = {name: _most([self._told(step, name) for step in worked]) for name in ("peak_rss", "peak_cuda")}
        stored = None if None in states else sum(size for size in states if size is not None)
        return Costs(**seconds, **peaks, states_bytes=stored, fit_bytes=self._bytes(fit))

    def _told(self, step: Step, name: str) -> float | None:
        found = self._entry(step)
        return None if found is None else found[0].get(name)

    def _bytes(self, step: Step) -> int | None:
        found = self._entry(step)
        return None if found is None else sum(found[1].values())

    def _entry(self, step: Step) -> _Entry | None:
        """Provenance and the bytes of each file, None for what is not there, or damaged: the plan tells of that."""
        if step.key not in self._read:
            try:
                artifact = self.store.find(step)
                self._read[step.key] = None if artifact is None else _entry_of(artifact)
            except DamagedArtifact:
                self._read[step.key] = None
        return self._read[step.key]


def _entry_of(artifact: Artifact) -> _Entry:
    files = artifact.manifest["files"]
    return artifact.json("provenance.json"), {name: entry["bytes"] for name, entry in files.items()}


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
