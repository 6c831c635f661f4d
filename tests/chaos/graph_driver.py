"""python -m tests.chaos.graph_driver STORE LOG ENGINE SECONDS EXPIRY: runs the graph of pieces.py, tells how."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from orchestration.execution import scheduler
from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.plan import make_plan
from orchestration.store import leases
from orchestration.store.artifacts import open_store
from tests.chaos.pieces import graph


def main() -> int:
    place, log, engine, seconds, expiry = sys.argv[1:]
    leases.BEAT_SECONDS, leases.EXPIRY_SECONDS, scheduler.POLL_SECONDS = float(expiry) / 10, float(expiry), 0.05
    store = open_store(Path(place))

    def told(kind: str, step: object, details: dict) -> None:
        if kind in ("failed", "waiting"):
            print(kind, details)

    def opened() -> scheduler.Engine:
        if engine == "inline":
            return InlineEngine(store, told)
        from orchestration.ray_backend.engine import RayEngine

        return RayEngine(store, told)

    outcomes = run_plan(make_plan(graph(Path(log), float(seconds)), store), opened, told)
    print(dict(Counter(outcome.state for outcome in outcomes.values())))
    return int(any(outcome.state in ("failed", "skipped") for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
