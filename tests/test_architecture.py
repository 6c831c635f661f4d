"""The rules of the house: who imports whom, how long a module is, what stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("vocabsem_core", "orchestration", "workflows")
ALLOWED = {"vocabsem_core": set(), "orchestration": set(), "workflows": {"vocabsem_core", "orchestration"}}
FOREIGN = {"vocabsem_core": {"ray", "mlflow", "datasets"}, "orchestration": {"transformers", "peft", "torch"}}
MODULES = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    found = [name for node in tree for name in names(node)]
    return {name.split(".")[0] for name in found}


def names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_module_imports_only_what_its_package_may_and_is_short(path):
    package = path.relative_to(REPOSITORY).parts[0]
    others = imported(path) & set(PACKAGES) - {package}
    assert others <= ALLOWED[package]
    assert not imported(path) & FOREIGN.get(package, set())
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plan", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    program = (
        f"import sys; sys.argv = ['vocabsem', *{arguments!r}]\n"
        "from workflows.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'ray', 'mlflow', 'transformers', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_core_runs_where_the_other_packages_are_not():
    modules = [f"vocabsem_core.{path.stem}" for path in sorted((REPOSITORY / "vocabsem_core").glob("[!_]*.py"))]
    program = (
        "import importlib, sys\n"
        "sys.modules.update(dict.fromkeys(['ray', 'mlflow', 'datasets', 'orchestration', 'workflows']))\n"
        f"[importlib.import_module(name) for name in {modules!r}]"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
