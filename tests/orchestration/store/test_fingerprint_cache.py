"""Facts about files are computed once, until a file's size or time changes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.store.fingerprint_cache import FingerprintCache

SETTLED, FRESH = 60.0, 0.0  # seconds since a file was written


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory" / "facts.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source.txt", "one", SETTLED)


def write(path: Path, text: str, age: float) -> Path:
    path.write_text(text)
    stamp = time.time_ns() - int(age * 1e9)
    os.utime(path, ns=(stamp, stamp))
    return path


def counted() -> tuple[list[int], Callable[[], int]]:
    """A list of the calls, and a function that adds to it and returns how many there were."""
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        return len(calls)

    return calls, compute


def test_an_unchanged_file_is_not_computed_again_by_a_later_process(memory: Path, source: Path) -> None:
    calls, compute = counted()
    found = [FingerprintCache(memory).get("kind", [source], compute) for _ in range(3)]
    assert (found, len(calls)) == ([1, 1, 1], 1)


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_size_or_time_computes_again(memory: Path, source: Path, change: str) -> None:
    compute = counted()[1]
    FingerprintCache(memory).get("kind", [source], compute)
    stamp = source.stat().st_mtime_ns
    if change == "size":
        source.write_text("longer")
    os.utime(source, ns=(stamp, stamp + (1 if change == "time" else 0)))
    assert FingerprintCache(memory).get("kind", [source], compute) == 2


def test_another_kind_or_set_of_files_is_another_fact(memory: Path, source: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.txt", "one", SETTLED)
    calls, compute = counted()
    for kind, sources in (("a", [source]), ("b", [source]), ("a", [other]), ("a", [source, other])):
        FingerprintCache(memory).get(kind, sources, compute)
    assert len(calls) == 4


def test_a_file_younger_than_two_seconds_is_not_remembered(memory: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh.txt", "one", FRESH)
    compute = counted()[1]
    FingerprintCache(memory).get("kind", [fresh], compute)
    assert not memory.exists()
    assert FingerprintCache(memory).get("kind", [fresh], compute) == 2


def test_one_young_file_among_old_ones_is_enough(memory: Path, source: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh.txt", "one", FRESH)
    FingerprintCache(memory).get("kind", [source, fresh], counted()[1])
    assert not memory.exists()


def test_a_young_file_is_not_remembered_along_with_an_old_one(memory: Path, source: Path, tmp_path: Path) -> None:
    fresh = write(tmp_path / "fresh.txt", "one", FRESH)
    facts = FingerprintCache(memory)
    young_calls, young = counted()
    facts.get("kind", [fresh], young)
    facts.get("kind", [source], counted()[1])
    FingerprintCache(memory).get("kind", [fresh], young)
    assert len(young_calls) == 2


@pytest.mark.parametrize("damage", ["", "{", '{"a"'])
def test_a_damaged_memory_is_forgotten_not_an_error(memory: Path, source: Path, damage: str) -> None:
    memory.parent.mkdir()
    memory.write_text(damage)
    assert FingerprintCache(memory).get("kind", [source], counted()[1]) == 1
    assert FingerprintCache(memory).get("kind", [source], counted()[1]) == 1


def test_a_memory_that_cannot_be_written_costs_time_and_nothing_else(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    facts, (calls, compute) = FingerprintCache(tmp_path / "file" / "facts.json"), counted()
    assert [facts.get("kind", [source], compute) for _ in range(2)] == [1, 1]
    assert len(calls) == 1


def test_a_computation_that_fails_is_not_remembered(memory: Path, source: Path) -> None:
    def fail() -> int:
        raise ValueError("no")

    facts = FingerprintCache(memory)
    with pytest.raises(ValueError, match="no"):
        facts.get("kind", [source], fail)
    assert facts.get("kind", [source], counted()[1]) == 1


def test_a_young_file_of_a_folder_that_was_made_here_is_remembered(memory: Path) -> None:
    """It appears whole and never changes, so the first run after a conversion has its facts already."""
    facts, (calls, compute) = FingerprintCache(memory), counted()
    made = facts.folder("models/one", lambda folder: (folder / "weights").write_text("one")) / "weights"
    assert facts.get("kind", [made], compute) == 1
    assert (FingerprintCache(memory).get("kind", [made], compute), len(calls)) == (1, 1)
