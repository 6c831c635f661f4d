"""Fixtures of the tests of sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.store.artifacts import Store, open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from tests import tiny
from tests.workflows.films import write_films
from tests.workflows.sweeps import ROWS, Done, Made, config, run
from workflows.sweep.graph import sweep


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a task and its rows."""
    folder = tmp_path_factory.mktemp("workspace")
    tiny.save(folder / "model", tiny.gpt2())
    write_films(folder, ROWS, ROWS)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def made(base: Path, store: Store) -> Made:
    return lambda place=base, **changes: sweep(
        config(**changes), place, None, FingerprintCache(store.root / "facts.json"), store
    )


@pytest.fixture(scope="module")
def done(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    store = open_store(tmp_path_factory.mktemp("done") / "store")
    given = config(
        settings={"k": 3}, space={"distance": {"choice": ["euclidean", "cosine"]}}, encoding={"store_dtype": "float32"}
    )
    return run(sweep(given, base, None, FingerprintCache(store.root / "facts.json"), store), store)
