"""Every public function of the core has an example, and every example gives what it shows."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import vocabsem_core
from tests import tiny

FUNCTIONS = [name for name in vocabsem_core.__all__ if inspect.isfunction(getattr(vocabsem_core, name))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model"), tiny.gpt2())


@pytest.mark.parametrize("name", [*FUNCTIONS, "Encoder", "ModuleEncoder"])
def test_the_example_gives_what_it_shows(name: str, folder: Path) -> None:
    public = getattr(vocabsem_core, name)
    known = {**vars(inspect.getmodule(public)), "folder": folder}
    (test,) = [one for one in doctest.DocTestFinder().find(public, name, globs=known) if one.examples]
    told: list[str] = []
    doctest.DocTestRunner().run(test, out=told.append)
    assert told == []
