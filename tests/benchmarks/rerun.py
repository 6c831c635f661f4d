"""Running a workflow again: the first run against one answered from the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.common import Case, seconds

REPOSITORY = Path(__file__).parents[2]
CACHED_RUNS = 5


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """The one case, on the template bundled.yaml; `data_dir` is not used."""
    with TemporaryDirectory() as store:
        yield rerun_case(REPOSITORY / "workflows" / "catalog" / "templates" / "bundled.yaml", Path(store))


def rerun_case(workflow: Path, store: Path, *options: str) -> Case:
    """Wall seconds of the whole command, first over cached."""
    documents: list[dict[str, Any]] = []
    cold = seconds(lambda: documents.append(run(workflow, store, *options)))
    cached = median(seconds(lambda: documents.append(run(workflow, store, *options))) for _ in range(CACHED_RUNS))
    check(documents)
    detail = (
        f"first run {cold:.1f} s ({documents[0]['steps']['ran']} steps), cached {cached:.2f} s (median of "
        f"{CACHED_RUNS}), whole processes; the same results each time; {workflow.name}"
    )
    return Case("rerun", "first run over cached run", cold / cached, 20.0, detail)


def run(workflow: Path, store: Path, *options: str) -> dict[str, Any]:
    """`vocabsem run` in a process of its own, what it prints with --json."""
    unset = ("VOCABSEM_STORE", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-m", "workflows", "run", str(workflow), "--store", str(store / "store"), "--json"]
    done = subprocess.run(
        [*command, *options], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def check(documents: list[dict[str, Any]]) -> None:
    """Raises ValueError unless the first run made the results and every later one found the same."""
    first, *later = documents
    for document in later:
        if document["steps"]["ran"] or document["results"] != first["results"]:
            raise ValueError(
                f"a cached run ran {document['steps']['ran']} steps; expected none, and the first run's results"
            )
