"""A finished comparison of every method on a tiny model, whose fits predict new rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestration.runs.record import RunRecord, runs
from orchestration.store.artifacts import Store, open_store
from orchestration.tracking.tracker import TrackingError
from tests import tiny
from tests.workflows.films import TASK, films, write_films
from tests.workflows.sweeps import QUIET
from workflows.config.yaml_file import read_workflow
from workflows.kind import Asked
from workflows.prediction.choice import Classifier, choose
from workflows.prediction.predict import Predictions, predict
from workflows.registry import WORKFLOWS
from workflows.runtime.progress import plain_lines
from workflows.session import open_session, run

ONE_EPOCH = {"settings": {"epochs": 1, "learning_rate": 0.01}}
WIDE = {"epochs": 2, "targets": "learned", "similarity": "euclidean"}
METHODS: list[Any] = [
    "zero-shot",
    {"method": "zero-shot", "name": "contextual", "settings": {"contextual": True}},
    "affinity",
    "affinity-centred",
    "semantic-prior",
    {"method": "calibration", "settings": {"epochs": 3}},
    {"method": "calibration-paper", "settings": {"epochs": 2}},
    {"method": "calibration-paper-centred", "settings": {"epochs": 2}},
    {"method": "linear-probe", "trials": 2},
    {"method": "linear-probe", "name": "folded", "folds": 3},
    {"method": "linear-probe", "name": "deep", "layer": "all"},
    {"method": "calibration", "name": "wide", "layer": "all", "folds": 2, "settings": WIDE},
    {"method": "calibration-paper", "name": "products", "settings": {"epochs": 2, "inference": "mm"}},
    {"method": "linear-probe", "name": "after-rows", "demonstrations": "random", "shots": 1},
    "centroid",
    "knn",
    "knn-lm",
    "knn-prompting",
    {"method": "icl", "shots": 1},
    {"method": "icl-bm25", "shots": 1},
    {"method": "icl-dense", "shots": 1},
    {"method": "lora", **ONE_EPOCH},
    {"method": "ia3", **ONE_EPOCH},
    {"method": "full", **ONE_EPOCH},
]
NAMES = [method if isinstance(method, str) else method.get("name", method["method"]) for method in METHODS]


@dataclass(frozen=True)
class Finished:
    """A run in its store."""

    folder: Path
    store: Store

    @property
    def record(self) -> RunRecord:
        (found,) = runs(self.store)
        return found

    def choose(self, **asked: Any) -> Classifier:
        return choose(self.record, self.store, Asked(**asked), None, QUIET, plain_lines)

    def predict(self, rows: Path, **asked: Any) -> Predictions:
        return predict(self.choose(**asked), rows, self.store, None, QUIET, plain_lines)


def finished(folder: Path, task: dict[str, Any], **changes: Any) -> Finished:
    """Run a comparison on a tiny model in a folder."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    tiny.save(folder / "model", tiny.gpt2())
    write_films(folder, films(40), films(12), task)
    document = {
        "workflow": "compare",
        "models": ["model"],
        "tasks": ["films.yaml"],
        "methods": METHODS,
        "seeds": [0],
        "search": {"trials": 0},
        "encoding": {"layers": ["all"]},
        "execution": {"executor": "inline"},
        **changes,
    }
    file = folder / "workflow.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    store = open_store(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workflows.session.fill", away)
        done = run(open_session(read_workflow(file, WORKFLOWS), file, store, None, None), QUIET)
    assert not done.failures, done.failures
    return Finished(folder, store)


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory.mktemp("compared"), TASK)
