"""The allocator's settings: taken where glibc is, and nothing where it is not."""

import ctypes

import pytest

from vocabsem_core import memory


class Library:
    """A C library that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: dict[int, int] = {}

    def mallopt(self, option: int, value: int) -> int:
        self.asked[option] = value
        return 1


@pytest.mark.parametrize(("platform", "options"), [("linux", {-1, -2, -3}), ("darwin", set())])
def test_the_options_are_set_where_the_allocator_may_know_them(monkeypatch, platform, options):
    library = Library()
    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    memory.keep_freed_memory()
    assert set(library.asked) == options


def test_a_library_without_the_call_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.keep_freed_memory()
