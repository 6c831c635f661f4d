"""States on disk: our Arrow shards against Hugging Face datasets; opening a layer; memory while reading."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from orchestration.graph import Step
from orchestration.store.arrow import column_array, read_table, table_of
from orchestration.store.artifacts import open_store
from tests.benchmarks.common import MIB, Case, anonymous_bytes, peak_anonymous, seconds

ROWS, WIDTH, SHARD = 65_536, 2_048, 1_024  # 256 MiB of float16, 64 shards
STEP = Step(name="states", label="states", version=1, run="none:none")


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """All cases; `data_dir` is not used."""
    memory_files = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with TemporaryDirectory() as place, TemporaryDirectory(dir=memory_files) as memory:
        folder, states = Path(place), random_states(ROWS, WIDTH)
        yield write_case(folder, Path(memory), states, rounds=5)
        yield open_case(folder / "ours")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            growth = child.submit(reading_growth, folder / "ours").result()
    detail = (
        f"anonymous memory grew by at most {growth / MIB:.1f} MiB (RssAnon, in a child process) while {ROWS // SHARD} "
        f"shards, {states.nbytes / MIB:.0f} MiB, were opened and read one after another; allowed 32 MiB"
    )
    yield Case("shards", "memory while reading", 32 * MIB / max(growth, 4096), 1.0, detail)


def random_states(rows: int, width: int) -> np.ndarray:
    """Seeded normal values, float16."""
    return np.random.default_rng(0).standard_normal((rows, width), dtype=np.float32).astype(np.float16)


def write_ours(folder: Path, states: np.ndarray) -> None:
    """Shards, each with its checksum beside it."""
    writer = open_store(folder).writer(STEP)
    writer.begin()
    for shard, start in enumerate(range(0, len(states), SHARD)):
        part = states[start : start + SHARD]
        writer.write_shard(shard, table_of(range(start, start + len(part)), {"head": part}))


def commit_ours(folder: Path) -> None:
    """Make the shards an artifact: the manifest, for which every file is read again, and the marker."""
    open_store(folder).writer(STEP).commit({})


def read_ours(folder: Path) -> list[np.ndarray]:
    """The layer, an array a shard, each over its mapped file."""
    artifact = open_store(folder).find(STEP)
    if artifact is None:
        raise FileNotFoundError(folder)
    return [column_array(read_table(path), "head") for path in artifact.shards()]


def write_theirs(folder: Path, states: np.ndarray, way: str) -> None:
    """`datasets`, by from_dict and save_to_disk; `way` is one of WAYS."""
    from datasets import Array2D, Dataset, Features, List, Value

    rows, width = states.shape
    if way == "inferred":
        features, column = None, states
    elif way == "list":
        features, column = Features({"row_id": Value("int64"), "head": List(Value("float16"), length=width)}), states
    else:
        features = Features({"row_id": Value("int64"), "head": Array2D((1, width), "float16")})
        column = states.reshape(rows, 1, width)
    Dataset.from_dict({"row_id": np.arange(rows), "head": column}, features=features).save_to_disk(folder)


WAYS = ("inferred", "list", "Array2D")


def read_theirs(folder: Path) -> np.ndarray:
    """The layer as datasets' numpy format gives it, [rows, width]."""
    from datasets import load_from_disk

    found = load_from_disk(folder).with_format("numpy")["head"][:]
    return found.reshape(len(found), -1)


def write_case(disk: Path, memory: Path, states: np.ndarray, rounds: int) -> Case:
    """Seconds to write the states, ours against the best way of datasets. Leaves ours in `disk`/ours.

    The ratio is taken in `memory`, a file system without a disk, since flushing is the disk's time and datasets never
    does it. What both take with a flush to the disk is told beside it.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()
    once = {way: _fresh(memory / way, partial(write_theirs, states=states, way=way), keep=False) for way in WAYS}
    best = min(WAYS, key=lambda way: once[way])
    sides: dict[str, tuple[Path, Callable[[Path], None]]] = {
        "ours": (memory / "ours", partial(write_ours, states=states)),
        "theirs": (memory / "theirs", partial(write_theirs, states=states, way=best)),
        "ours flushed": (disk / "ours", partial(write_ours, states=states)),
        "theirs flushed": (disk / "theirs", partial(_write_theirs_flushed, states=states, way=best)),
    }
    walls: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (folder, write) in sides.items():
            walls[side].append(_fresh(folder, write, keep=side == "ours flushed"))
    wall = {side: median(found) for side, found in walls.items()}
    ways = ", ".join(f"{way} {spent:.2f} s" for way, spent in once.items())
    commit = seconds(lambda: commit_ours(disk / "ours"))
    detail = (
        f"ours with checksums {wall['ours']:.2f} s (commit: {commit:.2f} s more), datasets without "
        f"{wall['theirs']:.2f} s by {best}, in memory; flushed to a disk: ours {wall['ours flushed']:.2f} s in "
        f"{2 * -(-len(states) // SHARD)} flushes, datasets {wall['theirs flushed']:.2f} s in one; each way of datasets "
        f"once: {ways}; {states.nbytes / MIB:.0f} MiB of float16 [{len(states):,} x {states.shape[1]:,}], {SHARD:,} "
        f"rows a shard, median of {rounds} alternating runs"
    )
    return Case("shards", "writing against datasets", wall["theirs"] / wall["ours"], 3.0, detail)


def _write_theirs_flushed(folder: Path, states: np.ndarray, way: str) -> None:
    write_theirs(folder, states, way)
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _fresh(folder: Path, write: Callable[[Path], None], keep: bool) -> float:
    """Seconds to write a folder; it is removed, if at all, outside the time."""
    shutil.rmtree(folder, ignore_errors=True)
    wall = seconds(lambda: write(folder))
    if not keep:
        shutil.rmtree(folder)
    return wall


def open_case(folder: Path) -> Case:
    """Milliseconds to open one layer of all shards by memory map."""
    first = seconds(lambda: read_ours(folder))
    again = median(seconds(lambda: read_ours(folder)) for _ in range(5))
    detail = (
        f"{1e3 * again:.1f} ms for all shards, nothing copied; {1e3 * first:.0f} ms the first time in a process, when "
        "every byte is compared with its checksum; allowed 50 ms"
    )
    return Case("shards", "reopening one layer", 0.05 / again, 1.0, detail)


def reading_growth(folder: Path) -> int:
    """Bytes that this process's anonymous memory grows by while every shard is opened and read, after the first one."""

    def read(count: int | None = None) -> None:
        for part in read_ours(folder)[:count]:
            part.sum(dtype=np.float32)

    read(1)  # Arrow's and numpy's own start
    before = anonymous_bytes()
    return peak_anonymous(read) - before
