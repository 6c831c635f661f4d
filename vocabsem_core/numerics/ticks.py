"""How far long work is: loops say so, and whoever started them may listen. Where nobody listens, nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Number = int | float  # checked at run time, where an int is no float
Listener = Callable[[Number, Number, str, str], None]  # (done, of, unit, note)

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def tick(done: Number, of: Number, unit: str, note: str = "") -> None:
    """Report progress to whoever listens; cheap enough for every batch.

    Args:
        done: units that are done.
        of: units in all; 0: not known.
        unit: their name in the plural: "epochs".
        note: more to show: "best 0.512".
    """
    if (listener := _listener.get()) is not None:
        listener(done, of, unit, note)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear the ticks of what runs within."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def part_of_more(before: Number, of: Number, unit: str, size: Number = 1, note: str = "") -> Iterator[None]:
    """Within, ticks are of a part of larger work.

    Args:
        before: units of the whole that are done.
        of: units of the whole.
        unit: their name in the plural: "trials".
        size: units that the part is.
        note: more to show.

    What the part says of itself joins the note: two trials in, "37 of 100 epochs" is told as 2.37 of 8 trials.
    """
    outer = _listener.get()
    if outer is None:
        yield
        return

    def translated(done: Number, whole: Number, inner: str, told: str) -> None:
        parts = (f"{int(done):,} of {int(whole):,} {inner}", told, note)
        outer(before + size * done / whole, of, unit, ", ".join(part for part in parts if part))

    outer(before, of, unit, note)
    with listening(translated):
        yield
