"""What the command line makes of its options, and what it says where a run failed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestration.execution.scheduler import Outcome
from orchestration.graph import in_order
from tests import tiny
from tests.integration.cluster import free_ports
from vocabsem_core.errors import InputError
from workflows.cli import app


def test_a_relative_data_dir_is_absolute_in_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on other machines, or in another folder, read what steps name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for split in ("train", "test"):
        lines = (json.dumps({"text": f"{split} {label} {n}", "label": label}) for n in range(4) for label in ("0", "1"))
        (tmp_path / "data" / "sst2" / f"{split}.jsonl").write_text("\n".join(lines))
    Path("w.yaml").write_text("workflow: compare\nmodels: [reference-1m]\ntasks: [sst2]\nmethods: [knn]\n")
    session = app._session(Path("w.yaml"), str(tmp_path / "store"), Path("data"), None)
    paths = {step.local["path"] for step in in_order(session.job.targets) if "path" in step.local}
    assert paths == {str(tmp_path / "data" / "sst2" / f"{split}.jsonl") for split in ("train", "test")}


@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_that_is_none_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("a server is started"))
    database = tmp_path / "mlflow.db"
    database.touch()
    done = CliRunner().invoke(app.app, ["ui", "--mlflow", f"sqlite:///{database}", "--port", port])
    assert done.exit_code == 2
    assert "'--port'" in done.stderr


def test_the_mlflow_server_takes_no_module_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes that MLflow starts, uvicorn's among them, are tried with the words and environment they get."""
    from mlflow.server import _build_uvicorn_command

    monkeypatch.chdir(tmp_path)
    for name in ("mlflow", "uvicorn", "asgi"):
        Path(f"{name}.py").write_text("print('a file of the user')\nraise SystemExit(7)\n")
    Path("mlflow.db").touch()
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, command: started.append(command))
    for name in ("PYTHONSAFEPATH", "MLFLOW_DISABLE_TELEMETRY", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
    (port,) = free_ports(1)
    done = CliRunner().invoke(app.app, ["ui", "--mlflow", "sqlite:///mlflow.db", "--port", str(port)])
    assert done.exit_code == 0
    (command,) = started
    options = command[command.index("--uvicorn-opts") + 1]
    uvicorn = _build_uvicorn_command(options, "127.0.0.1", port, "1", "asgi:app")
    for words in ([*command[: command.index("server")], "--version"], uvicorn):
        found = subprocess.run(words, capture_output=True, text=True)
        assert "a file of the user" not in found.stdout, words
        assert found.returncode != 7, found.stderr


@pytest.mark.parametrize("in_a_job", [False, True])
def test_what_failed_is_gone_on_with_by_a_command_that_works(
    in_a_job: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job's own command names files that go with the job."""
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    monkeypatch.delenv(RAY_JOB_CONFIG_JSON_ENV_VAR, raising=False)
    if in_a_job:
        monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}")
    monkeypatch.setattr(sys, "argv", ["vocabsem", "run", "inputs/my file.yaml"])
    with pytest.raises(typer.Exit):
        app._end_if([("fit", Outcome("failed", "no room", 1))])
    told = capsys.readouterr().err.splitlines()[-1]
    command = "resume with:  vocabsem run 'inputs/my file.yaml'"
    assert told.endswith("cause, submit the file again." if in_a_job else f"cause, {command}")


NOVEL = {"model_type": "novel", "auto_map": {"AutoConfig": "novel.NovelConfig", "AutoModelForCausalLM": "novel.Novel"}}


def make_novel(folder: Path, mark: Path) -> None:
    """A model of an unknown type beside the program that it names, which leaves a mark where it is run."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **NOVEL}))
    (folder / "novel.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")


def test_code_of_a_model_folder_is_not_run_whoever_says_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_novel(tiny.save(tmp_path / "folder", tiny.gpt2()), tmp_path / "mark")
    done = CliRunner().invoke(app.app, ["basis", "./folder", "--store", "store", "--json"], input="y\n" * 1000)
    assert isinstance(done.exception, InputError)
    assert "auto_map names code of its own" in str(done.exception)
    assert done.stdout == ""  # nobody was asked
    assert not (tmp_path / "mark").exists()


def test_code_of_a_model_of_the_hub_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the hub's cache a model is a folder of links into another one."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, cached = "0" * 40, tmp_path / "hub" / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    (cached / "snapshots" / commit).mkdir(parents=True)
    Path("m.yaml").write_text("name: m\nhub: some/model\nrevision: main\n")

    def basis(unsafe: bool) -> Any:
        tiny.save(cached / "blobs", tiny.gpt2())
        if unsafe:
            make_novel(cached / "blobs", tmp_path / "mark")
        for blob in (cached / "blobs").iterdir():
            link = cached / "snapshots" / commit / blob.name
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../../blobs") / blob.name)
        return CliRunner().invoke(app.app, ["basis", "m.yaml", "--store", "store", "--json"], input="y\n" * 1000)

    assert json.loads(basis(unsafe=False).stdout)["model"] == "m"
    done = basis(unsafe=True)
    assert isinstance(done.exception, InputError)
    assert "auto_map names code of its own" in str(done.exception)
    assert done.stdout == ""  # nobody was asked
    assert not (tmp_path / "mark").exists()


def test_the_versions_are_shown_without_importing_what_they_are_of() -> None:
    code = (
        "import sys; sys.argv = ['vocabsem', '--version']\nfrom workflows.cli.app import main\ntry: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'ray', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *lines, imported = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["vocabsem", "torch", "transformers", "ray", "mlflow"], done.stderr
    assert imported == "[]"


@pytest.mark.parametrize("flag", [[], ["--verbose"]])
def test_what_is_looked_up_is_logged_where_it_is_asked_for(tmp_path: Path, flag: list[str]) -> None:
    (tmp_path / "w.yaml").write_text("workflow: compare\nmodels: [reference-1m]\ntasks: [sst2]\nmethods: [knn]\n")
    for split in ("train", "test"):
        (tmp_path / "sst2").mkdir(exist_ok=True)
        rows = (json.dumps({"text": f"{split} {n}", "label": str(n % 2)}) for n in range(8))
        (tmp_path / "sst2" / f"{split}.jsonl").write_text("\n".join(rows))
    words = ["plan", str(tmp_path / "w.yaml"), "--store", str(tmp_path / "store"), "--data-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "workflows", *flag, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("orchestration.store.artifacts: " in done.stderr) == bool(flag)
