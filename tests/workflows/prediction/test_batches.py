"""Requests that arrive together are answered together, each with its own answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from workflows.prediction.batches import Batches

Rows = Sequence[Mapping[str, Any]]


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def doubled(seen: list[int]) -> Any:
    """Answers each text twice over, and notes the size of each batch."""

    def answer(given: Rows) -> list[str]:
        seen.append(len(given))
        if any(row["text"] == "bad" for row in given):
            raise ValueError("a bad row")
        return [row["text"] * 2 for row in given]

    return answer


async def asked(batches: Batches[str], *requests: list[dict[str, str]]) -> list[Any]:
    batches.start()
    try:
        return await asyncio.gather(*(batches.ask(request) for request in requests), return_exceptions=True)
    finally:
        await batches.stop()


def test_requests_within_the_window_are_one_batch() -> None:
    seen: list[int] = []
    found = asyncio.run(asked(Batches(doubled(seen), 64, 0.2), rows("a"), rows("b", "c"), rows("d")))
    assert found == [["aa"], ["bb", "cc"], ["dd"]]
    assert seen == [4]


def test_a_full_batch_does_not_wait_for_the_window() -> None:
    seen: list[int] = []
    found = asyncio.run(asyncio.wait_for(asked(Batches(doubled(seen), 2, 3600), rows("a", "b"), rows("c", "d")), 30))
    assert found == [["aa", "bb"], ["cc", "dd"]]
    assert seen == [2, 2]


def test_a_bad_row_is_its_senders_trouble_only() -> None:
    seen: list[int] = []
    first, second, third = asyncio.run(asked(Batches(doubled(seen), 64, 0.2), rows("a"), rows("bad"), rows("c")))
    assert (first, third) == (["aa"], ["cc"])
    assert isinstance(second, ValueError)
    assert seen == [3, 1, 1, 1]


def test_one_who_gave_up_is_not_answered_and_the_others_are() -> None:
    held = threading.Event()

    def slow(given: Rows) -> list[str]:
        held.wait(30)
        return [row["text"] for row in given]

    async def main() -> list[str]:
        batches: Batches[str] = Batches(slow, 64, 0.05)
        batches.start()
        gone, stays = asyncio.create_task(batches.ask(rows("a"))), asyncio.create_task(batches.ask(rows("b")))
        await asyncio.sleep(0.2)
        gone.cancel()
        held.set()
        found = await stays
        await batches.stop()
        return found

    assert asyncio.run(main()) == ["b"]


def test_whoever_waits_when_it_ends_is_told() -> None:
    async def main() -> None:
        batches: Batches[str] = Batches(doubled([]), 64, 0)
        waiting = asyncio.create_task(batches.ask(rows("a")))  # nothing was started
        await asyncio.sleep(0)
        await batches.stop()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
