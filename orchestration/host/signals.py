"""Signals that ask a driver to end: the first leaves it time to clean up, a second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Wrappers such as `timeout` pass on a signal that the terminal or they themselves have sent already.
_ECHO_SECONDS = 1.0
_SHOW_CURSOR = b"\x1b[?25h"  # a display may have hidden it
_LAST_WORD = b"\nended at once, without cleaning up\n"


class Signals:
    """Turns the first of these signals into a KeyboardInterrupt, whichever it is, and remembers it.

    Attributes:
        first: the signal that came first, or None.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._since = 0.0
        self._terminals = [number for number in (1, 2) if os.isatty(number)]

    def listen(self) -> None:
        """Begin to listen. Signals that the caller of this process ignores (`nohup`, `&`) stay ignored."""
        for number in _ASKING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._heard)

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that was ended by the first signal."""
        return 128 + (self.first or signal.SIGINT)

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self.first is None:
            self.first, self._since = number, time.monotonic()
            if number == signal.SIGHUP:
                self._leave_terminal()
            raise KeyboardInterrupt
        if time.monotonic() - self._since > _ECHO_SECONDS:
            os.write(2, _SHOW_CURSOR + _LAST_WORD if 2 in self._terminals else _LAST_WORD)
            os._exit(self.exit_status)

    def _leave_terminal(self) -> None:
        """It is gone, and writing to it would be an error in the middle of cleaning up."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in self._terminals:
            os.dup2(nowhere, number)


@contextmanager
def keeping_signals() -> Iterator[None]:
    """What is called within may replace the handler of SIGTERM by one that ends the process, as `ray.init` does.

    It is put back afterwards, and hears a signal that came meanwhile.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGTERM, before)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
