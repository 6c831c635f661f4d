"""What the tests of sweeps share: a file, its rows, and a sweep that is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import Step
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import Store
from orchestration.store.files import replace_json
from orchestration.store.scratch import scratch_folder
from tests.workflows.films import films
from workflows.config.sweep import SweepConfig
from workflows.steps.sweep import CONFIRMED, RECORDS, SWEEP
from workflows.sweep.graph import Sweep

ROWS = films(40)
SWEPT = {
    "workflow": "sweep",
    "name": "mine",
    "model": "model",
    "task": "films.yaml",
    "method": "knn",
    "space": {"k": {"choice": [1, 2]}, "distance": {"choice": ["cosine", "euclidean"]}},
    "search": {"algorithm": "grid"},
    "execution": {"executor": "inline"},
}
QUIET: Any = lambda *_: None  # noqa: E731


def config(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate({**SWEPT, **changes})


Made = Callable[..., Sweep]


def begun(found: Sweep, store: Store) -> Path:
    """Leave what an unfinished search leaves, with a configuration that is done; its scratch folder."""
    folder = scratch_folder(store.root, found.search.folder)
    record = {"key": "one", "ended": "finished", "validation": 0.5, "loss": None, "curve": []}
    replace_json(folder / "packs" / "one.json", [record])
    replace_json(folder / SWEEP, {"name": found.config.name, "asked": found.search.local["asked"]})
    return folder


@dataclass(frozen=True)
class Done:
    sweep: Sweep
    store: Store
    records: list[dict[str, Any]]
    confirmed: dict[str, Any]


def run(found: Sweep, store: Store) -> Done:
    outcomes = run_plan(make_plan(found.targets, store), lambda: InlineEngine(store, QUIET), QUIET)
    assert {outcome.state for outcome in outcomes.values()} <= {"ran", "cached"}, outcomes
    return Done(found, store, found.records(store), artifact_json(store, found.confirm, CONFIRMED))


def artifact_json(store: Store, step: Step, name: str) -> Any:
    artifact = store.find(step)
    assert artifact is not None
    return artifact.json(name)


class StepProgress:
    """A store that has made-up documents of a finished sweep."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self._documents = documents

    def find(self, step: Step) -> StepProgress:
        return self

    def json(self, name: str) -> Any:
        return self._documents[name]


def retold(done: Done, **changes: Any) -> Any:
    provenance = {"search_seconds": 2.0}
    confirmed = {**done.confirmed, **changes}
    return StepProgress({CONFIRMED: confirmed, RECORDS: done.records, "provenance.json": provenance})


def candidate(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "settings": settings, "mean": 0.5, "low": 0.4, "high": 0.6}


BEST, DEFAULT = candidate("best 1", k=3, distance="euclidean"), candidate("defaults", k=3, distance="cosine")
