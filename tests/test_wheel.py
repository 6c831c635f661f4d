"""The wheel works apart from the checkout: built, installed into a folder, and used from an empty one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("vocabsem", "vocabsem_core", "orchestration", "workflows")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

# MLflow takes long to start and has its own tests.
COMPARISON = """
import workflows.session
from orchestration.tracking.tracker import TrackingError

def away(*_):
    raise TrackingError("MLflow is away")

workflows.session.fill = away
import vocabsem

workflow = {"workflow": "compare", "models": ["reference"], "tasks": ["starter-topics"], "methods": ["affinity", "knn"],
            "seeds": [0], "search": {"trials": 0}, "limit": {"train": 30, "test": 20}}
done = vocabsem.run(workflow, executor="inline", progress=False)
assert not done.failures, done.failures
print(len(done.table()), tuple(done.states("reference", "starter-topics", "test").shape))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the packages as the wheel does, and nothing else of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools would leave a build folder in the checkout
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (REPOSITORY / name).is_file():
            shutil.copy(REPOSITORY / name, source)
    run(folder, *PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("vocabsem-*.whl")
    run(folder, *PIP, "install", "--no-deps", "--no-index", "--no-compile", "--target", folder / "site", wheel)
    return folder / "site"


def run(folder: Path, *command: str | Path, site: Path | None = None) -> str:
    """What a command prints, in a folder of its own and with no path to the checkout."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = {"PYTHONPATH": str(site)} if site is not None else {}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**kept, **path})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_is_there_with_its_types_and_data(installed: Path) -> None:
    for package in PACKAGES:
        assert (installed / package / "py.typed").is_file()
        sources = {path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*.py")}
        assert sources == {path.relative_to(installed) for path in (installed / package).rglob("*.py")}
    for data in ("report/page.html", "catalog/tasks/starter-topics.yaml", "catalog/models/reference/model.safetensors"):
        assert (installed / "workflows" / data).is_file()
    top = {path.name for path in installed.iterdir() if "dist-info" not in path.name}
    assert top - {"bin"} == set(PACKAGES)


def test_it_is_imported_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    for package in PACKAGES:
        show = f"import {package}; print({package}.__file__)"
        (found,) = run(tmp_path, sys.executable, "-c", show, site=installed).split()
        assert Path(found).is_relative_to(installed)


def test_it_runs_a_comparison_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    found = run(tmp_path, sys.executable, "-c", COMPARISON, site=installed)
    assert found.strip() == "2 (20, 256)"
    assert [path.name for path in tmp_path.iterdir()] == [".vocabsem"]


def test_its_command_line_starts_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    found = run(tmp_path, sys.executable, "-m", "workflows", "explain", "knn", site=installed)
    assert "knn" in found


def test_it_brings_the_quick_start_to_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "workflows")
    told = run(tmp_path, *command, "init", "quickstart", site=installed)
    assert told.startswith("wrote quickstart.yaml\n")
    assert (tmp_path / "quickstart.yaml").read_text() == (REPOSITORY / "quickstart.yaml").read_text()
    assert run(tmp_path, *command, "init", "bundled", site=installed).startswith("wrote bundled.yaml\n")
    assert run(tmp_path, *command, "validate", "bundled.yaml", site=installed).endswith("\nvalid\n")
