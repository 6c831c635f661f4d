"""Requests answered in batches: what arrives within a moment is read by the model at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Waiting(Generic[Answer]):
    rows: Rows
    answer: asyncio.Future[list[Answer]]


class Batches(Generic[Answer]):
    """Collects rows of several requests and answers each with its own.

    Args:
        answer: gives an answer to each of some rows; called in a thread of its own, one call at a time.
        most: rows of a batch; a request that holds more is a batch by itself.
        seconds: for which the first request of a batch waits for others.
    """

    def __init__(self, answer: Callable[[Rows], list[Answer]], most: int, seconds: float) -> None:
        self._answer, self._most, self._seconds = answer, most, seconds
        self._waiting: asyncio.Queue[_Waiting[Answer]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; whoever still waits is told so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while not self._waiting.empty():
            self._waiting.get_nowait().answer.cancel()
        self._thread.shutdown()

    async def ask(self, rows: Rows) -> list[Answer]:
        """The answers to some rows. Raises what `answer` raises on these rows."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        await self._waiting.put(_Waiting(rows, future))
        return await future

    async def _run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            await self._gather(batch)
            await self._serve(batch)

    async def _gather(self, batch: list[_Waiting[Answer]]) -> None:
        """Add what arrives in time and fits."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._seconds
        while sum(len(one.rows) for one in batch) < self._most:
            try:
                batch.append(await asyncio.wait_for(self._waiting.get(), end - loop.time()))
            except TimeoutError:
                return

    async def _serve(self, batch: Sequence[_Waiting[Answer]]) -> None:
        """Answer a batch; where it fails, each request alone, so that one bad row is its sender's trouble only."""
        rows = [row for one in batch for row in one.rows]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, rows)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    await self._serve([one])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        start = 0
        for one in batch:
            mine = found[start : start + len(one.rows)]
            start += len(one.rows)
            if not one.answer.done():  # its sender may have gone
                one.answer.set_result(mine)
