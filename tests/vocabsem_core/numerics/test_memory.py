"""The allocator's settings: taken where glibc is, and nothing where it is not; and how much memory is free."""

import ctypes
from pathlib import Path

import pytest
from transformers import GPT2Config, LlamaConfig

from vocabsem_core.numerics import memory


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


def test_tokens_of_a_pass_follow_from_the_models_size():
    assert 1500 < memory.tokens_of_a_pass(LlamaConfig()) < 2500  # 7 B weights
    assert memory.tokens_of_a_pass(GPT2Config(n_embd=8, n_layer=1)) == (8 << 30) // (34 * 8)


def test_what_is_free_is_some_of_what_there_is():
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 0 < memory.free_bytes() <= int(lines["MemTotal"].split()[0]) * 1024


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 4_096_000),
        ({"memory.max": "max\n", "memory.current": "7\n"}, 4_096_000),
        ({"memory.max": "1000000\n", "memory.current": "400000\n"}, 600_000),
        ({"memory.max": "9000000000\n", "memory.current": "400000\n"}, 4_096_000),
        ({"memory.max": "1000\n", "memory.current": "1001\n"}, 0),
    ],
    ids=["no containers", "no limit", "a limit", "a limit above what is there", "beyond the limit"],
)
def test_what_is_free_is_within_the_containers_limit(monkeypatch, tmp_path, files, free):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemFree:  1 kB\nMemAvailable:  4000 kB\nHugePages: 0\n")
    places = {"/proc/meminfo": tmp_path / "meminfo", "/sys/fs/cgroup": tmp_path}
    monkeypatch.setattr(memory, "Path", places.__getitem__)
    assert memory.free_bytes() == free
