"""What Ray costs: a cold comparison on it against the same in one process, and trained fits against their own work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.common import Case, seconds
from tests.benchmarks.rerun import run

ROUNDS = 3
SPARE, TRAINED_SPARE = 1.2, 1.3  # times the other side's time
CACHED = ["zero-shot", "affinity", "affinity-centred", "semantic-prior", "calibration", "linear-probe", "knn"]
TRAINED = [{"method": method, "trials": 0} for method in ("lora", "ia3")]
COMPARISON = {
    "workflow": "compare",
    "models": ["reference"],
    "tasks": ["starter-topics", "starter-sentiment"],
    "methods": CACHED,
    "seeds": [0, 1, 2],
    "search": {"trials": 8},
}


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """Both cases, on the bundled model; `data_dir` is not used."""
    yield cold_case(COMPARISON, ROUNDS)
    yield trained_case({**COMPARISON, "methods": ["zero-shot", *TRAINED], "seeds": [0]})


def cold_case(workflow: Mapping[str, Any], rounds: int) -> Case:
    """Wall seconds of the whole command in an empty store, in one process over on Ray."""
    wall: dict[str, list[float]] = {"inline": [], "ray": []}
    steps: list[int] = []
    for _ in range(rounds):
        for executor, found in wall.items():
            with TemporaryDirectory() as place:
                file = _written(workflow, Path(place))
                found.append(seconds(lambda f=file, e=executor: steps.append(_ran(run(f, f.parent, "--executor", e)))))
    inline, ray = median(wall["inline"]), median(wall["ray"])
    detail = (
        f"on Ray {ray:.1f} s, --executor inline {inline:.1f} s; {steps[0]} steps, whole processes, empty stores, "
        f"median of {rounds} alternating runs; the ratio is {SPARE:g} times inline over Ray"
    )
    return Case("overhead", "a cold comparison on Ray", SPARE * inline / ray, 1.0, detail)


def trained_case(workflow: Mapping[str, Any]) -> Case:
    """Seconds of trained fits on Ray, from the first one's start to the last one's end, beside their own work."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        run(_written({**workflow, "methods": ["zero-shot"]}, folder), folder)  # texts and head are there
        document = run(_written(workflow, folder), folder)
        work = sum(found["fit_seconds"] for found in document["results"] if found["method"] != "zero-shot")
        wall = span(folder / "store" / "runs" / document["run_id"] / "events.jsonl", "finetune")
    detail = (
        f"{len(document['results']) * 2 // 3} fits by Ray Train took {wall:.1f} s from the first start to the last "
        f"end, their own measured work {work:.1f} s; the ratio is {TRAINED_SPARE:g} times work over wall"
    )
    return Case("overhead", "trained fits on Ray", TRAINED_SPARE * work / wall, 1.0, detail)


def span(events: Path, kind: str) -> float:
    """Seconds from the first start of a step of a kind to the end of the last."""
    told = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    times = [datetime.fromisoformat(one["time"]).timestamp() for one in told if one["step"].startswith(kind)]
    return max(times) - min(times)


def _written(workflow: Mapping[str, Any], folder: Path) -> Path:
    file = folder / "overhead.yaml"
    file.write_text(json.dumps(workflow), encoding="utf-8")  # JSON is YAML
    return file


def _ran(document: Mapping[str, Any]) -> int:
    return document["steps"]["ran"]
