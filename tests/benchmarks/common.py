"""What the benchmarks share: a case and its line, alternating timing, anonymous memory."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

REFERENCE = Path(__file__).parents[2] / "workflows" / "catalog" / "models" / "reference"
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """One measured comparison.

    Attributes:
        name: the benchmark.
        case: what was compared.
        ratio: ours to theirs, without unit; higher is better.
        goal: the least ratio that passes.
        detail: the measured numbers behind the ratio, with units.
    """

    name: str
    case: str
    ratio: float
    goal: float
    detail: str

    @property
    def passed(self) -> bool:
        return self.ratio >= self.goal

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps({**asdict(self), "ratio": float(f"{self.ratio:.4g}")})

    def text(self) -> str:
        """Lines for a person."""
        verdict = "ok    " if self.passed else "MISSED"
        return f"{verdict}  {self.ratio:>9.4g}  goal {self.goal:<5g}  {self.name}: {self.case}\n        {self.detail}"


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median wall seconds of each side: every round runs each side once, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(seconds(side))
    return {name: statistics.median(found) for name, found in times.items()}


def seconds(call: Callable[[], object]) -> float:
    """Wall seconds of one call; its result is dropped within the time."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def anonymous_bytes() -> int:
    """Memory of this process that no file backs (RssAnon), in bytes: without mapped files, which can be dropped."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon; this benchmark needs Linux 4.5 or newer")


def peak_anonymous(call: Callable[[], object], every: float = 0.002) -> int:
    """The largest anonymous memory of this process, in bytes, seen while `call` runs; looked at `every` seconds."""
    peak, done = anonymous_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(every):
            peak = max(peak, anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        made = call()  # held, so that what a short call returns is seen
        peak = max(peak, anonymous_bytes())
        del made
    finally:
        done.set()
        watcher.join()
    return peak
