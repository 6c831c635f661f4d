"""A driver to be killed: python -m tests.chaos.driver STORE ENGINE LOG [CALL MOMENT]. Runs a small graph.

With CALL and MOMENT the process ends with SIGKILL at the CALL-th time a file is made: `before` it is begun, `within`
(half of it is on disk), or `after` it has its name.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import Step
from orchestration.runs.plan import make_plan
from orchestration.store import files
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, squares, total


def targets(log: str | None = None, seconds: float = 0) -> list[Step]:
    """What is run: a plain step, a sharded one, one that reads both."""
    return [total(number(5, log=log), squares(3, Path(log) if log else None, workers=1, seconds=seconds), log=log)]


def die_at(call: int, moment: str) -> None:
    """Patch the one place where artifacts' files are made."""
    made = 0
    stage, publish = files.stage, files.publish

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def staged(folder: Path, name: str, fill: Callable[[Path], object]) -> Path:
        nonlocal made
        made += 1
        if made == call and moment == "before":
            kill()
        if made == call and moment == "within":
            whole = stage(folder, name, fill)
            whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
            kill()
        return stage(folder, name, fill)

    def published(temporary: Path, path: Path) -> bool:
        first = publish(temporary, path)
        if made == call and moment == "after":
            kill()
        return first

    files.stage, files.publish = staged, published


def main() -> None:
    store_path, engine, log, *fault = sys.argv[1:]
    store = open_store(Path(store_path))
    if fault:
        die_at(int(fault[0]), fault[1])

    def quiet(*_: object) -> None:
        pass

    def opened() -> object:
        if engine == "inline":
            return InlineEngine(store, quiet)
        from orchestration.ray_backend.engine import RayEngine

        return RayEngine(store, quiet)

    run_plan(make_plan(targets(log, seconds=0.5 if engine == "ray" else 0), store), opened, quiet)


if __name__ == "__main__":
    main()
