"""The public names: what is listed can be imported, type checkers see the same, and importing loads nothing heavy."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "ray", "mlflow", "transformers", "pandas", "datasets", "pyarrow", "pydantic")


@pytest.mark.parametrize("package", ["vocabsem", "vocabsem_core"])
def test_every_public_name_can_be_imported_and_is_seen_by_type_checkers(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == list(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'runn'"):
        _ = module.runn


def test_what_type_checkers_see_is_what_python_gives() -> None:
    module = importlib.import_module("vocabsem")
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    for node in (node for node in typed.body if isinstance(node, ast.ImportFrom)):
        for alias in node.names:
            expected = getattr(importlib.import_module(str(node.module)), alias.name)
            assert getattr(module, alias.asname or alias.name) is expected


@pytest.mark.parametrize(
    "code",
    [
        "import vocabsem",
        "import vocabsem_core",
    ],
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert not loaded(code) & set(HEAVY)


def test_a_method_of_ones_own_and_a_run_load_no_torch() -> None:
    """A plan of cached steps imports own methods."""
    found = loaded("from vocabsem import Domain, Fitted, Method, Settings, open_run, plan, run")
    assert not found & {"torch", "ray", "mlflow", "transformers", "pandas", "datasets"}


def loaded(code: str) -> set[str]:
    """The top-level modules that are there after some code."""
    show = "import json, sys; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))
