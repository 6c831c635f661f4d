"""A served classifier under load: requests read together against one at a time, and how long the slow ones take."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.benchmarks.common import Case
from tests.benchmarks.encode import numbered, texts
from workflows.prediction.server import Limits

CLIENTS, SECONDS = 50, 60.0
WORKFLOW = {
    "workflow": "compare",
    "models": ["reference"],
    "tasks": ["starter-topics"],
    "methods": ["linear-probe"],
    "seeds": [0],
    "search": {"trials": 0},
    "execution": {"executor": "inline"},
}
ONE_BY_ONE = Limits(batch_rows=1, window_seconds=0.0)


@dataclass(frozen=True)
class Load:
    """Seconds of each answered request, and how long clients asked."""

    latencies: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Seconds within which such a share of requests was answered."""
        return statistics.quantiles(self.latencies, n=100)[round(100 * share) - 1]


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """A linear probe on the bundled model; requests of one text each."""
    with TemporaryDirectory() as place:
        made(Path(place))
        found = [text[:300] for text in numbered(texts(data_dir), 500)]
        together, alone = (
            under_load(Path(place), limits, found, CLIENTS, SECONDS) for limits in (Limits(), ONE_BY_ONE)
        )
    detail = (
        f"{CLIENTS} clients for {SECONDS:g} s: read together {together.rate:.0f} requests/s, one at a time "
        f"{alone.rate:.0f}; no error in {len(together.latencies) + len(alone.latencies):,} requests"
    )
    yield Case("serve", "requests read together against one at a time", together.rate / alone.rate, 3.0, detail)
    half, most = together.quantile(0.5), together.quantile(0.95)
    told = f"p50 {1e3 * half:.0f} ms, p95 {1e3 * most:.0f} ms; the ratio is 3 times p50 over p95"
    yield Case("serve", "latency of the slow ones", 3 * half / most, 1.0, told)


def made(folder: Path) -> None:
    """A finished comparison in a store of the folder."""
    from tests.benchmarks.rerun import run

    file = folder / "served.yaml"
    file.write_text(json.dumps(WORKFLOW), encoding="utf-8")
    run(file, folder)


def under_load(folder: Path, limits: Limits, found: Sequence[str], clients: int, seconds: float) -> Load:
    """The server in a process of its own, asked by so many clients at once."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, limits, listening), daemon=True)
    child.start()
    listening.close()
    try:
        return asyncio.run(_ask(address, found, clients, seconds))
    finally:
        child.terminate()
        child.join()


def _serve(folder: Path, limits: Limits, listening: socket.socket) -> None:
    import uvicorn

    from orchestration.runs.record import runs
    from orchestration.store.artifacts import open_store
    from workflows.kind import Asked
    from workflows.prediction.choice import choose
    from workflows.prediction.server import About, application
    from workflows.prediction.service import Service
    from workflows.runtime.progress import plain_lines

    store = open_store(folder / "store")
    classifier = choose(runs(store)[0], store, Asked(), None, lambda _: None, plain_lines)
    candidate, service = classifier.candidate, Service(classifier, store)
    about = About(candidate.model, candidate.task, candidate.method, candidate.labels, candidate.fields)
    app = application(service.documents, about, limits=limits)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


async def _ask(address: str, found: Sequence[str], clients: int, seconds: float) -> Load:
    """Raises RuntimeError for an answer that is none."""
    import aiohttp

    latencies: list[float] = []
    wanted = itertools.cycle(found)

    async def client(session: Any, end: float) -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            async with session.post(f"{address}/predict", json={"texts": [next(wanted)]}) as answer:
                told = await answer.json()
            if answer.status != 200 or len(told["predictions"]) != 1:
                raise RuntimeError(f"status {answer.status}: {told}")
            latencies.append(time.perf_counter() - started)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"{address}/healthz", timeout=aiohttp.ClientTimeout(total=120)) as answer:
            assert answer.status == 200
        begun = time.perf_counter()
        await asyncio.gather(*(client(session, begun + seconds) for _ in range(clients)))
        return Load(latencies, time.perf_counter() - begun)
