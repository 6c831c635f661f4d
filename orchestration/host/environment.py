"""Environment variables for the time of one call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(given: Mapping[str, str]) -> Iterator[None]:
    """Set variables; afterwards each is as it was before."""
    with restored(*given):
        os.environ.update(given)
        yield


@contextmanager
def restored(*names: str) -> Iterator[None]:
    """Whatever sets variables of these names within, afterwards each is as it was before."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
