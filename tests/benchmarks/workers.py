"""Two workers against one, each of one thread, on the step encode; and what the driver itself costs a step."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.common import MIB, REFERENCE, Case, anonymous_bytes

PROMPTS, ROUNDS = 8 * 1024, 3  # eight shards: four for each of two workers
STEPS = 1000
GOAL_MS = 5.0  # of the driver, a step
FLAT_MIB = 8.0  # that the driver's memory may grow from the 100th step to the last: outcomes and keys are kept


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """The driver's own cost first; then encoding, on Ray."""
    yield from overhead_cases(STEPS)
    yield workers_case(REFERENCE, numbered_texts(data_dir, PROMPTS), ROUNDS)


def numbered_texts(data_dir: Path | None, count: int) -> list[str]:
    """Texts as the benchmark `encode` has them."""
    from tests.benchmarks.encode import numbered, texts

    return numbered(texts(data_dir), count)


def overhead_cases(steps: int) -> Iterator[Case]:
    """Many steps that do next to nothing, in this process, store in memory; planning, leases and commits included."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        seconds, growth = drive(Path(place), steps)
    each = 1e3 * seconds / steps
    detail = f"{each:.2f} ms a step; {steps:,} steps in {seconds:.2f} s, inline, store in memory; goal {GOAL_MS:g} ms"
    yield Case("workers", "driver overhead: allowed over measured", GOAL_MS / each, 1.0, detail)
    grown = max(growth / MIB, 0.01)
    detail = f"anonymous memory grew by {growth / MIB:.2f} MiB from the 100th step to the last; goal {FLAT_MIB:g} MiB"
    yield Case("workers", "driver memory: allowed growth over measured", FLAT_MIB / grown, 1.0, detail)


def drive(place: Path, steps: int) -> tuple[float, int]:
    """Seconds of plan and run, and bytes by which this process grew on the way."""
    from orchestration.execution.scheduler import InlineEngine, run_plan
    from orchestration.runs.plan import make_plan
    from orchestration.store.artifacts import open_store
    from tests.orchestration.steps import number, total

    store, sizes = open_store(place / "store"), []
    ignore = lambda *_: None  # noqa: E731
    run_plan(make_plan([total(number(1))], store), lambda: InlineEngine(store, ignore), ignore)  # imports
    targets = [total(number(1), factor=2.0 + i) for i in range(steps)]

    def emit(kind: str, *_: Any) -> None:
        if kind == "ran":
            sizes.append(anonymous_bytes())

    started = time.perf_counter()
    outcomes = run_plan(make_plan(targets, store), lambda: InlineEngine(store, emit), emit)
    seconds = time.perf_counter() - started
    if sum(outcome.state == "ran" for outcome in outcomes.values()) != steps:
        raise RuntimeError("not every step ran")
    return seconds, sizes[-1] - sizes[min(100, steps // 2)]


def workers_case(folder: Path, found: Sequence[str], rounds: int) -> Case:
    """Prompts a second of two workers over one, between each worker's first shard and the last of all."""
    os.environ["OMP_NUM_THREADS"] = "1"  # Ray's workers inherit it
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for count, told in speeds.items():
            told.append(speed(folder, found, count))
    one, two = median(speeds[1]), median(speeds[2])
    detail = (
        f"two workers {two:.0f} prompts/s, one {one:.0f}; {len(found):,} prompts, one thread each, start-up left out; "
        f"median of {rounds} alternating runs on {os.cpu_count()} cores"
    )
    return Case("workers", "encoding: two workers over one", two / one, 1.8, detail)


def speed(folder: Path, found: Sequence[str], workers: int) -> float:
    """Prompts a second of the step encode with so many workers of one core, once each has filled a shard."""
    import dataclasses

    from orchestration.execution.scheduler import InlineEngine, run_plan
    from orchestration.graph import Resources, in_order
    from orchestration.ray_backend.engine import RayEngine
    from orchestration.runs.plan import make_plan
    from orchestration.store.artifacts import open_store
    from tests.benchmarks.encode import _comparison

    with TemporaryDirectory() as place:
        store, marks = open_store(Path(place) / "store"), []
        targets = [cell.score for cell in _comparison(Path(place), folder, found)]
        (step,) = [step for step in in_order(targets) if step.name == "encode"]
        ignore = lambda *_: None  # noqa: E731
        run_plan(make_plan(list(step.inputs.values()), store), lambda: InlineEngine(store, ignore), ignore)
        step = dataclasses.replace(step, resources=Resources(cpus=1, gpus=0, workers=workers))

        def emit(kind: str, _: Any, told: dict[str, Any]) -> None:
            if kind == "shard":
                marks.append(time.perf_counter())
            elif kind == "failed":
                raise RuntimeError(json.dumps(told))

        run_plan(make_plan([step], store), lambda: RayEngine(store, emit), emit)
        artifact = store.find(step)
        assert artifact is not None
        rows = artifact.rows
    # The first shard of each worker holds its start; every later one is measured.
    return rows * (len(marks) - workers) / len(marks) / (marks[-1] - marks[workers - 1])
