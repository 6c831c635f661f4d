"""How far a transfer between this machine and a bucket is, for the step that waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Report = Callable[[str], None]
_report: ContextVar[Report | None] = ContextVar("report", default=None)


@contextmanager
def transfers_reported(report: Report) -> Iterator[None]:
    """Within it, `report` gets a line about each transfer, again and again, and "" at its end."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


@contextmanager
def transfer(verb: str, name: str, size: int) -> Iterator[Callable[[int], None]]:
    """One transfer. It calls what this yields with the bytes of each piece, from any thread.

    Args:
        verb: "downloading" or "uploading".
        name: of the file.
        size: in bytes.
    """
    report, lock, done = _report.get(), threading.Lock(), 0

    def count(piece: int) -> None:
        nonlocal done
        with lock:
            done += piece
            if report is not None:
                report(f"{verb} {name}: {done / 1e6:,.0f} of {size / 1e6:,.0f} MB")

    try:
        yield count
    finally:
        if report is not None:
            report("")
