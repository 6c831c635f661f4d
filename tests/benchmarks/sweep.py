"""Configurations per second of a search: packs on workers that stay, against one Ray Tune trial a configuration."""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.tune import WorkerSlots, search
from tests.benchmarks.common import MIB, Case, anonymous_bytes, peak_anonymous
from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack, lane_bytes
from vocabsem_core.calibration.modules import CalibrationSettings, Labelled, untrained
from vocabsem_core.semantics.affinity import semantic_logits
from workflows.search.trials import side_by_side

ROWS, VALIDATION, WIDTH, CLASSES = 2000, 500, 256, 6
RESIDUAL = CalibrationSettings(rank=16, epochs=20, patience=None)
PAPER = CalibrationSettings(
    module="paper", loss="labels", dropout=0.0, learn_temperature=False, epochs=20, patience=None
)
OURS, THEIRS, MANY = 256, 32, 1000  # configurations; a worker for each gets fewer: it is timed without its start
MINUTES, ROUNDS = 3, 3
TIMES, MORE = 10, 1.25  # so many times the rows, or the configurations, may take so many times the memory


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """All cases, on random states; `data_dir` is not used. About ten minutes."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
    import ray

    with TemporaryDirectory() as folder:
        data = write_data(Path(folder), ROWS, VALIDATION, WIDTH)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        importlib.import_module("ray.tune")  # neither this nor the cluster's start is the first case's alone
        ray.get([ray.remote(lambda: None).remote() for _ in range(2)])
        try:
            yield from trial_cases(data, RESIDUAL, OURS, THEIRS)
            yield from many_cases(data, MANY)
            yield from trial_cases(data, PAPER, 64, 16, goals=(1.0, 1.0))
        finally:
            ray.shutdown()
        yield from memory_cases(Path(folder), ROWS, WIDTH)


def trial_cases(
    data: Path, settings: CalibrationSettings, ours: int, theirs: int, goals: tuple[float, float] = (10.0, 4.0)
) -> Iterator[Case]:
    """Packs against single trials, whose workers end with each or are used again; the latter try as many as ours."""
    seconds = median(packed_seconds(data, settings, ours, 2) for _ in range(ROUNDS))
    for reuse, goal, count in zip((False, True), goals, (theirs, ours), strict=True):
        speed = single_speed(data, settings, count, reuse)
        detail = (
            f"{ours} configurations in {seconds:.1f} s, start included ({ours / seconds:.1f}/s), median of {ROUNDS}, "
            f"packs of {pack_of(settings, 2)}; one a trial {speed:.2f}/s, start {'included' if reuse else 'left out'} "
            f"({count} configurations, a plain loop of torch's own modules); "
            f"{ROWS} x {WIDTH} rows, {settings.epochs} epochs, two one-thread trials at a time"
        )
        kind = "calibration" if settings.module == "residual" else "calibration-paper"
        case = f"{kind}: packs against a trial each, {'workers used again' if reuse else 'workers of their own'}"
        yield Case("sweep", case, ours / seconds / speed, goal, detail)


def many_cases(data: Path, count: int) -> Iterator[Case]:
    """A thousand configurations against the three minutes they may take, and two workers against one."""
    one, two = (packed_seconds(data, RESIDUAL, count, workers) for workers in (1, 2))
    detail = f"{count} configurations, start included: one worker {one:.1f} s, two {two:.1f} s, one thread each"
    yield Case(
        "sweep", f"{MINUTES} minutes against the time of {count} configurations", MINUTES * 60 / two, 1.0, detail
    )
    yield Case("sweep", "two workers against one", one / two, 1.7, detail)


def memory_cases(folder: Path, rows: int, width: int) -> Iterator[Case]:
    """Memory of a worker that tries packs, against that with ten times the rows, and with ten times as many packs."""
    settings, count = replace(PAPER, epochs=1), 2 * pack_of(PAPER, 1)
    for times in (1, TIMES):
        (folder / str(times)).mkdir()
        write_data(folder / str(times), rows * times, VALIDATION, width)
    usual = peak_of_search(folder / "1", settings, count)
    rows_text = f"{rows} rows against {rows * TIMES}"
    for case, peak in (
        (rows_text, peak_of_search(folder / str(TIMES), settings, count)),
        (f"{count} configurations against {count * TIMES}", peak_of_search(folder / "1", settings, count * TIMES)),
    ):
        detail = (
            f"{usual / MIB:.1f} MiB against {peak / MIB:.1f} MiB at the peak, beyond what the process held before and "
            f"without mapped files; calibration-paper, width {width}, packs of {pack_of(settings, 1)}"
        )
        yield Case("sweep", f"memory: {case}", usual / peak, 1 / MORE, detail)


def peak_of_search(folder: Path, settings: CalibrationSettings, count: int) -> int:
    """The most memory a search takes in a process of its own, in bytes."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak, folder, settings, count).result()


def _peak(folder: Path, settings: CalibrationSettings, count: int) -> int:
    load(str(folder))
    torch.zeros(1, requires_grad=True).sum().backward()  # what autograd sets up once
    before = anonymous_bytes()
    return peak_anonymous(lambda: packed_seconds(folder, settings, count, 0)) - before


def write_data(folder: Path, rows: int, validation: int, width: int) -> Path:
    """Random states around a centre for each class, with a common mean, in files to be mapped."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(CLASSES, width))
    for name, count in (("train", rows), ("validation", validation)):
        labels = np.arange(count) % CLASSES
        states = 3 + centres[labels] + 4 * draw.normal(size=(count, width))
        np.save(folder / f"{name}.npy", states.astype(np.float16))
        np.save(folder / f"{name}-labels.npy", labels)
    np.save(folder / "basis.npy", draw.normal(size=(CLASSES, width)).astype(np.float32))
    return folder


class Mapped:
    """Rows of a mapped file, float32 when asked for."""

    dtype = torch.float32

    def __init__(self, path: Path) -> None:
        self._rows = np.load(path, mmap_mode="r")
        self.shape = self._rows.shape

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return torch.from_numpy(self._rows[rows.numpy()].astype(np.float32))


@cache
def load(folder: str) -> tuple[Labelled, Labelled, Tensor]:
    """Training rows, validation rows and basis."""
    torch.set_num_threads(1)
    at = Path(folder)
    parts = [
        Labelled(Mapped(at / f"{name}.npy"), torch.from_numpy(np.load(at / f"{name}-labels.npy")))
        for name in ("train", "validation")
    ]
    return parts[0], parts[1], torch.from_numpy(np.load(at / "basis.npy"))


def configurations(settings: CalibrationSettings, count: int) -> list[dict[str, Any]]:
    """Learning rates and weight decays, drawn."""
    draw = Random(0)
    dropouts = (0.1, 0.3, 0.5) if settings.module == "residual" else (0.0,)
    return [
        {
            "key": str(number),
            "learning_rate": 10 ** draw.uniform(-4, -2),
            "weight_decay": 10 ** draw.uniform(-2, 0),
            "dropout": draw.choice(dropouts),
        }
        for number in range(count)
    ]


def with_values(settings: CalibrationSettings, one: Mapping[str, Any]) -> CalibrationSettings:
    """The settings of a configuration."""
    return replace(settings, **{name: value for name, value in one.items() if name != "key"})


def try_pack(setup: Mapping[str, Any], pack: Sequence[dict[str, Any]], watch: Any) -> list[dict[str, Any]]:
    """Ours: what a worker does with a pack."""
    train, validation, basis = load(setup["folder"])
    lanes = [Lane(with_values(setup["settings"], one), 0) for one in pack]
    return [
        {**one, "ended": "finished", "validation": -found.validation_loss, "curve": []}
        for one, found in zip(pack, fit_pack(train, validation, basis, lanes), strict=True)
    ]


def pack_of(settings: CalibrationSettings, workers: int) -> int:
    """How many configurations of the benchmark a worker trains side by side, as a sweep has it."""
    return side_by_side(lane_bytes(settings, WIDTH, CLASSES), "cpu", workers)


class Packs:
    """Packs from a list, as many as there are workers at least."""

    def __init__(self, all_of_them: list[dict[str, Any]], most: int, workers: int = 1) -> None:
        size = min(most, -(-len(all_of_them) // workers))
        self._packs = [all_of_them[start : start + size] for start in range(0, len(all_of_them), size)]
        self.total = len(all_of_them)

    def take(self) -> list[dict[str, Any]] | None:
        return self._packs.pop() if self._packs else None

    def tell(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Nothing is learned from results."""

    @property
    def exhausted(self) -> bool:
        return not self._packs


def packed_seconds(folder: Path, settings: CalibrationSettings, count: int, workers: int) -> float:
    """Wall seconds of our search, from nothing to the last record; no workers: in this process."""
    at_once = max(1, workers)
    setup = {"folder": str(folder), "settings": settings}
    with TemporaryDirectory() as scratch:
        started = time.perf_counter()
        found = search(
            "tests.benchmarks.sweep:try_pack",
            setup,
            Packs(configurations(settings, count), pack_of(settings, at_once), at_once),
            WorkerSlots(workers, 1, 0),
            Stopping("none", 1, settings.epochs),
            None,
            Path(scratch),
        )
        assert len(found) == count, f"{len(found)} of {count} configurations came back"
        return time.perf_counter() - started


def plain_loop(settings: CalibrationSettings, folder: str) -> float:
    """Theirs: one calibrator as a first script would train it, by torch's own layers and optimizer; its last loss."""
    train, validation, basis = load(folder)
    everything = torch.arange(len(train.labels))
    states, held = train.states[everything], validation.states[torch.arange(len(validation.labels))]
    weights = untrained(settings, states.mean(dim=0), states.std(dim=0), torch.Generator().manual_seed(0), basis)
    if not settings.learn_temperature:
        fixed = weights.pop("log_temperature")
    trained = [w.requires_grad_() for name, w in weights.items() if name not in ("mean", "deviation")]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)

    def loss(rows: Tensor, labels: Tensor, dropout: float) -> Tensor:
        if settings.module == "paper":
            squeezed = functional.relu(functional.linear(rows, weights["attention.squeeze"]))
            attended = rows * (2 * functional.linear(squeezed, weights["attention.expand"]))
            moved = functional.linear(
                functional.relu(functional.linear(attended, weights["mlp.up"])), weights["mlp.down"]
            )
            moved = functional.layer_norm(moved, moved.shape[-1:], weights["norm.weight"], weights["norm.bias"])
        else:
            z = (rows - weights["mean"]) / weights["deviation"]
            hidden = functional.gelu(functional.linear(z, weights["down.weight"], weights["down.bias"]))
            hidden = functional.dropout(hidden, dropout)
            moved = rows + weights["deviation"] * functional.linear(hidden, weights["up.weight"], weights["up.bias"])
        temperature = weights["log_temperature"] if settings.learn_temperature else fixed
        return functional.cross_entropy(semantic_logits(moved, basis, "cosine", temperature.exp()), labels)

    last = torch.tensor(0.0)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(states)).split(settings.batch_size):
            optimizer.zero_grad()
            loss(states[rows], train.labels[rows], settings.dropout).backward()
            optimizer.step()
        with torch.no_grad():
            last = loss(held, validation.labels, 0.0)
    return float(last)


def single_speed(folder: Path, settings: CalibrationSettings, count: int, reuse: bool) -> float:
    """Configurations a second of Ray Tune with one a trial.

    With workers that are used again their start is part of it, as of ours. Where each trial has a worker of its own,
    every trial has a start, and the time is that between the first that ends and the last.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray import tune

    ends: list[float] = []

    class Clock(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ends.append(time.perf_counter())

    def trial(config: dict[str, Any]) -> None:
        tune.report({"loss": plain_loop(with_values(settings, config["one"]), str(folder))})

    with TemporaryDirectory() as storage:
        started = time.perf_counter()
        tune.Tuner(
            tune.with_resources(trial, {"CPU": 1}),
            param_space={"one": tune.grid_search(configurations(settings, count))},
            tune_config=tune.TuneConfig(max_concurrent_trials=2, reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=storage, verbose=0, callbacks=[Clock()]),
        ).fit()
    return count / (ends[-1] - started) if reuse else (count - 1) / (ends[-1] - ends[0])
