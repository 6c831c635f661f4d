"""What the command line makes of its options, and what it says where a run failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from orchestration.executor import Outcome
from orchestration.graph import in_order
from workflows import cli


def test_a_relative_data_dir_is_absolute_in_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers on other machines, or in another folder, read what steps name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    for split in ("train", "test"):
        lines = (json.dumps({"text": f"{split} {label} {n}", "label": label}) for n in range(4) for label in ("0", "1"))
        (tmp_path / "data" / "sst2" / f"{split}.jsonl").write_text("\n".join(lines))
    Path("w.yaml").write_text("workflow: compare\nmodels: [reference-1m]\ntasks: [sst2]\nmethods: [knn]\n")
    session = cli._session(Path("w.yaml"), str(tmp_path / "store"), Path("data"), None)
    paths = {step.local["path"] for step in in_order(session.job.targets) if "path" in step.local}
    assert paths == {str(tmp_path / "data" / "sst2" / f"{split}.jsonl") for split in ("train", "test")}


@pytest.mark.parametrize("port", ["0", "70000"])
def test_a_port_that_is_none_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("a server is started"))
    database = tmp_path / "mlflow.db"
    database.touch()
    done = CliRunner().invoke(cli.app, ["ui", "--mlflow", f"sqlite:///{database}", "--port", port])
    assert done.exit_code == 2
    assert "'--port'" in done.stderr


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
        cli._end_if([("fit", Outcome("failed", "no room", 1))])
    told = capsys.readouterr().err.splitlines()[-1]
    command = "go on with:  vocabsem run 'inputs/my file.yaml'"
    assert told.endswith("mended, submit the file again." if in_a_job else f"mended, {command}")
