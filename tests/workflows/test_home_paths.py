"""`~` begins the home folder in every field and option that takes a path; a variable is refused with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from workflows.cli import app
from workflows.config.compare import CompareConfig, MethodConfig, ModelConfig
from workflows.config.pretrain import PretrainConfig
from workflows.config.sweep import SweepConfig
from workflows.config.task import TaskConfig
from workflows.config.yaml_file import read_yaml
from workflows.errors import ConfigError
from workflows.runtime.environment import store_place, tracking_uri

COMPARE: Mapping[str, Any] = {"workflow": "compare", "models": ["m"], "tasks": ["t"], "methods": [{"method": "knn"}]}
SWEEP: Mapping[str, Any] = {"workflow": "sweep", "name": "s", "model": "m", "task": "t", "method": "knn"}
PRETRAIN: Mapping[str, Any] = {
    "workflow": "pretrain",
    "name": "p",
    "corpus": {"files": ["a.txt"]},
    "training": {"tokens": 8192},
    "evaluation": {"tasks": ["t"]},
}
TASK: Mapping[str, Any] = {
    "name": "t",
    "source": {"train": "a.csv", "test": "b.csv"},
    "template": "{text} is",
    "words": {"x": "good", "y": "bad"},
}
FIELDS = [
    (ModelConfig, {"name": "m"}, ("folder",)),
    (TaskConfig, TASK, ("source", "train")),
    (TaskConfig, TASK, ("source", "test")),
    (CompareConfig, COMPARE, ("store",)),
    (CompareConfig, COMPARE, ("models", 0)),
    (CompareConfig, COMPARE, ("tasks", 0)),
    (CompareConfig, COMPARE, ("methods", 0, "method")),
    (MethodConfig, {"method": "knn", "models": ["m"]}, ("models", 0)),
    (SweepConfig, SWEEP, ("store",)),
    (SweepConfig, SWEEP, ("model",)),
    (SweepConfig, SWEEP, ("task",)),
    (SweepConfig, SWEEP, ("method",)),
    (PretrainConfig, PRETRAIN, ("store",)),
    (PretrainConfig, PRETRAIN, ("corpus", "files", 0)),
    (PretrainConfig, PRETRAIN, ("evaluation", "tasks", 0)),
    (PretrainConfig, PRETRAIN, ("output",)),
]
every_field = pytest.mark.parametrize(
    ("model", "document", "place"),
    [pytest.param(*field, id=f"{field[0].__name__} {'.'.join(map(str, field[2]))}") for field in FIELDS],
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, seen from an empty folder elsewhere."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def written(folder: Path, document: Mapping[str, Any], place: tuple[str | int, ...], value: str) -> Path:
    """A YAML file of a document with one value put in; JSON is YAML."""
    whole = json.loads(json.dumps(document))
    inner = whole
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (folder / "file.yaml").write_text(json.dumps(whole))
    return folder / "file.yaml"


@every_field
def test_a_field_takes_the_home_folder(
    home: Path, tmp_path: Path, model: type[BaseModel], document: Mapping[str, Any], place: tuple[str | int, ...]
) -> None:
    found: Any = read_yaml(written(tmp_path, document, place, "~/mine"), model)
    for name in place:
        found = found[name] if isinstance(name, int) else getattr(found, name)
    assert str(found) == f"{home}/mine"


@every_field
def test_a_field_refuses_a_variable(
    home: Path, tmp_path: Path, model: type[BaseModel], document: Mapping[str, Any], place: tuple[str | int, ...]
) -> None:
    file = written(tmp_path, document, place, "$HOME/mine")
    with pytest.raises(ConfigError) as refused:
        read_yaml(file, model)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{file}:1: {'.'.join(map(str, place))}: ")
    assert "$HOME is not replaced in a path; write the path out, or begin it with ~" in line


def refusal(*words: str) -> str:
    """What the command line says against these words; it makes nothing in the folder where it is called."""
    before = sorted(Path().rglob("*"))
    done = CliRunner().invoke(app.app, words)
    assert getattr(done.exception, "exit_code", None) == 2, done.exception
    assert sorted(Path().rglob("*")) == before
    return str(done.exception)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "{}/mine"],
        ["validate", "w.yaml", "--data-dir", "{}/mine"],
        ["run", "w.yaml", "--data-dir", "{}/mine"],
        ["ls", "--store", "{}/mine"],
        ["ui", "--mlflow", "{}/mine"],
        ["ui", "--mlflow", "sqlite:///{}/mine"],
    ],
    ids=" ".join,
)
def test_an_option_takes_the_home_folder_and_refuses_a_variable(home: Path, words: list[str]) -> None:
    Path("w.yaml").write_text("workflow: compare\nmodels: [m]\ntasks: [t]\nmethods: [knn]\n")
    assert f"{home}/mine" in refusal(*(word.format("~") for word in words))
    assert "$HOME is not replaced in a path" in refusal(*(word.format("$HOME") for word in words))


@pytest.mark.parametrize(
    "words",
    [
        ["basis", "$HOME/model"],
        ["report", "latest", "--html", "$HOME/page.html"],
        ["report", "latest", "--markdown", "$HOME/page.md"],
        ["report", "latest", "--latex", "$HOME/page.tex"],
        ["export", "latest", "$HOME/run.tar"],
        ["import", "$HOME/run.tar"],
    ],
    ids=" ".join,
)
def test_a_file_that_is_read_or_written_refuses_a_variable(home: Path, words: list[str]) -> None:
    assert "$HOME is not replaced in a path" in refusal(*words)


@pytest.mark.parametrize(
    ("variable", "read"),
    [("VOCABSEM_STORE", lambda: store_place(None, None)), ("MLFLOW_TRACKING_URI", lambda: tracking_uri(None))],
)
def test_a_variable_of_the_environment_takes_the_home_folder_and_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, read: Any
) -> None:
    monkeypatch.setenv(variable, "~/mine")
    assert read() == f"{home}/mine"
    monkeypatch.setenv(variable, "$HOME/mine")
    with pytest.raises(ConfigError, match=rf"^\${variable} \$HOME/mine: \$HOME is not replaced in a path"):
        read()
