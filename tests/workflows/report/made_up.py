"""A run's record and its results, made up: two models, two tasks, three training sizes, names that need escaping."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store, open_store
from workflows.results.model import Costs, Detail, Result, Versus, stored
from workflows.results.verdicts import judged

METHODS = ("zero-shot", "calibration", "knn_50%")  # the last in LaTeX: \_ and \%
TASKS = ("topics", "a<b>&c")  # the last in HTML: &lt;
MODELS = {"small": 1_000_000, "large": 7_000_000}
SIZES: tuple[int | str, ...] = (4, 16, "full")
WORKFLOW = "workflow: compare\nmodels: [small]\ntasks: [topics]\nmethods: [knn]   # <script>alert(1)</script>\n"


def found(
    model: str = "small", task: str = "topics", method: str = "knn_50%", size: int | str = "full", **changes: Any
) -> tuple[Result, Detail]:
    """A result whose numbers follow from its names."""
    step = METHODS.index(method) if method in METHODS else 0
    grown = 0.1 * SIZES.index(size) + 0.05 * list(MODELS).index(model) + 0.03 * TASKS.index(task)
    mean = 0.3 + 0.07 * step + grown
    result = Result(
        model, task, method, "accuracy", mean, mean - 0.04, mean + 0.05, 0.01, [0, 1, 2], 200, train_size=size
    )
    versus = None
    if method != "calibration" and size == "full":
        lead = 0.07 * (step - 1)
        by_seed = [{"seed": seed, "reference_seed": seed, "won": 20 + seed, "lost": 6, "p": 0.009} for seed in (0, 1)]
        versus = Versus("calibration", lead, lead - 0.02, lead + 0.02, 0.0004 if step == 2 else 0.3, by_seed)
    behind = 0.07 * (step - 2)
    to_best = None
    if method != "knn_50%" and size == "full":
        to_best = Versus("knn_50%", behind, behind - 0.02, behind + 0.02, 0.0002 if step == 0 else 0.0004)
    detail = Detail(
        trained_weights=1234 * step,
        costs=Costs(12.0, 1.5, 8.25 if step else 0.0, 0.5, 3e8, None, 2_000_000, 40_000),
        constant_prediction=method == "zero-shot" and task == "topics",
        calibration_error=0.1,
        settings={0: {}},
        versus=versus,
        trials=8 if step else None,
        budget=8 if step else None,
        labels=["no", "yes"],
        confusion=[[30, 20], [10, 40]],
        model_weights=MODELS[model],
        to_best=to_best,
    )
    return result, detail


def results() -> list[tuple[Result, Detail]]:
    """Of everything; zero-shot reads no training rows, so it stands at the largest size alone."""
    return judged(
        [
            found(model, task, method, size)
            for model in MODELS
            for task in TASKS
            for size in reversed(SIZES)
            for method in METHODS
            if size == "full" or method != "zero-shot"
        ]
    )


def record_of(
    folder: Path, lines: list[tuple[Result, Detail]] | None = None, workflow: str = WORKFLOW
) -> tuple[RunRecord, Store]:
    """A record of two steps, one computed by this run."""
    store = open_store(folder / "store")
    record = RunRecord("0123456789abcdef", store.root / "runs" / "0123456789abcdef")
    record.folder.mkdir(parents=True)
    (record.folder / "workflow.yaml").write_text(workflow, encoding="utf-8")
    steps = [{"label": f"{name} x", "key": name * 8, "step": name, "inputs": {}} for name in ("encode", "score")]
    record.write("graph.json", {"run_id": record.run_id, "started": "2026-01-02T03:04:05.000+00:00", "steps": steps})
    record.write("results.json", stored(results() if lines is None else lines))
    ran = '{"event": "ran", "key": "scorescorescorescorescorescorescorescore"}\n'
    (record.folder / "events.jsonl").write_text(ran, encoding="utf-8")
    return record, store


def averaged(model: str, method: str) -> tuple[float, float, float]:
    """Mean over tasks and its interval, by hand."""
    means = [found(model, task, method)[0].mean for task in TASKS]
    mean = sum(means) / 2
    return mean, mean - math.hypot(0.04, 0.04) / 2, mean + math.hypot(0.05, 0.05) / 2
