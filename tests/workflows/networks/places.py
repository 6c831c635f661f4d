"""A workspace for tests of networks: a user's Python file with a plain nn.Sequential, and rows of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from orchestration.store.artifacts import Store
from orchestration.tracking.tracker import TrackingError
from tests.workflows.sweeps import QUIET
from workflows.config.yaml_file import read_workflow
from workflows.registry import WORKFLOWS
from workflows.session import RunSummary, open_session, run

PLACES = {"warm": (0.0, 1.0), "cold": (1.0, -1.0), "dull": (-1.0, -1.0)}
WORDS = {"warm": "red", "cold": "blue", "dull": "grey"}  # the head's row "green" is no label's
CLASSES = ["red", "green", "blue", "grey"]
METHODS = [
    "zero-shot", "affinity", "affinity-centred", "semantic-prior", "calibration", "linear-probe", "centroid", "knn",
]  # fmt: skip
NET = """
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from vocabsem import Network

WEIGHTS = Path(__file__).with_name("net.safetensors")
CLASSES = ["red", "green", "blue", "grey"]


def numbers():
    module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    module.load_state_dict(load_file(WEIGHTS))
    return Network(module, lambda row: torch.tensor([row["x"], row["y"]]), torch.zeros(2), CLASSES, files=[WEIGHTS])


def images():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    return Network(module, lambda row: torch.tensor(row["image"] / 255.0).float()[None], torch.zeros(1, 4, 4), CLASSES)


def sounds():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    return Network(module, lambda row: torch.tensor(row["sound"].samples), torch.zeros(8), CLASSES)
"""


def blobs(count: int, seed: int) -> list[dict[str, Any]]:
    """Points around three places."""
    labels, noise = [list(PLACES)[n % 3] for n in range(count)], np.random.default_rng(seed).normal(size=(count, 2))
    points = [np.array(PLACES[label]) + 0.6 * one for label, one in zip(labels, noise, strict=True)]
    return [{"x": float(x), "y": float(y), "label": label} for (x, y), label in zip(points, labels, strict=True)]


def trained() -> nn.Sequential:
    """The weights of `numbers`."""
    rows = blobs(300, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    numbers = torch.tensor([[row["x"], row["y"]] for row in rows])
    classes = torch.tensor([CLASSES.index(WORDS[row["label"]]) for row in rows])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(numbers), classes).backward()
        optimizer.step()
    return made


def make_workspace(folder: Path) -> Path:
    """The Python file, its weights, and a table of numbers."""
    (folder / "net.py").write_text(NET, encoding="utf-8")
    save_file(trained().state_dict(), folder / "net.safetensors")
    for split, count in (("train", 60), ("test", 45)):
        rows = "".join(json.dumps(row) + "\n" for row in blobs(count, seed=count))
        (folder / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    return folder


TABLE = {"train": "train.jsonl", "test": "test.jsonl", "columns": {"x": "x", "y": "y"}}


def write_workflow(folder: Path, network: str, source: dict[str, Any], **changes: Any) -> Path:
    """A comparison of the methods on a task whose rows are of a source."""
    (folder / "task.yaml").write_text(json.dumps({"name": "blobs", "source": source, "words": WORDS}), encoding="utf-8")
    document = {
        "workflow": "compare",
        "models": [f"net.py:{network}"],
        "tasks": ["task.yaml"],
        "methods": METHODS,
        "seeds": [0],
        "search": {"trials": 0},
        "encoding": {"layers": ["head", "layer_00"], "store_dtype": "float32"},
        "execution": {"executor": "inline"},
        **changes,
    }
    (file := folder / "workflow.yaml").write_text(json.dumps(document), encoding="utf-8")
    return file


def done(file: Path, store: Store) -> RunSummary:
    """Run a workflow file; MLflow does not hear of it."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workflows.session.fill", away)
        return run(open_session(read_workflow(file, WORKFLOWS), file, store, None, None), QUIET)
