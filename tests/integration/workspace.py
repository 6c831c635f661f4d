"""A small workspace for tests of the command line: a task of starter rows, a workflow file, and how it is called."""

import json
import os
import subprocess
from pathlib import Path

import yaml

from tests.integration.commands import Command, call

REPOSITORY = Path(__file__).parents[2]
STARTER = REPOSITORY / "workflows" / "catalog" / "starter" / "sentiment"
METHODS = ["zero-shot", "affinity", "calibration", "linear-probe", "knn"]
TASK = {
    "name": "small",
    "source": {"train": "train.jsonl", "test": "test.jsonl"},
    "template": "Review: {text}\nSentiment:",
    "words": {"negative": "negative", "positive": "positive"},
}
WORKFLOW = {
    "workflow": "compare",
    "models": ["reference"],
    "tasks": ["small.yaml"],
    "methods": METHODS,
    "seeds": [0, 1],
    "search": {"trials": 2},
}


def write(folder: Path, name: str, document: dict) -> str:
    (folder / name).write_text(yaml.safe_dump(document), encoding="utf-8")
    return name


def make_workspace(folder: Path) -> Path:
    """A task of 60 + 30 starter rows and its workflow file."""
    for split, rows in (("train", 60), ("test", 30)):
        lines = (STARTER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.utime(folder / f"{split}.jsonl", (1e9, 1e9))  # old enough for its digest to be remembered
    write(folder, "small.yaml", TASK)
    write(folder, "workflow.yaml", WORKFLOW)
    return folder


def cli(folder: Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, which finds its imports done."""
    done = call(folder, arguments, {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment})
    assert not check or done.returncode == 0, done.stderr
    return done


def cli_begun(folder: Path, *arguments: str, **environment: str) -> Command:
    """The same while it runs."""
    return Command(folder, arguments, {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment})


def cli_json(folder: Path, *arguments: str) -> dict:
    return json.loads(cli(folder, *arguments, "--json").stdout)
