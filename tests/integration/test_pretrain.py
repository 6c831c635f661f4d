"""The `pretrain` workflow, as a user runs it: made, resumed after a kill, used by a comparison; and users' mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from orchestration.store.artifacts import open_store
from orchestration.tracking.mlflow_client import default_uri
from tests.card import read_card
from tests.integration.workspace import REPOSITORY, STARTER, cli, cli_begun, cli_json, write

WORKFLOW = {
    "workflow": "pretrain",
    "name": "tiny",
    "corpus": {"files": ["corpus/*.txt"], "held_out": 0.2},
    "vocabulary": 300,
    "model": {"width": 16, "layers": 2, "heads": 2, "context": 32},
    "training": {"tokens": 6400, "batch_tokens": 64},
    "evaluation": {"tasks": ["starter-topics"], "rows": 20},
    "execution": {"checkpoint_steps": 10},
    "description": "Starter texts, CC0.",
}
STEPS = 100


def make_folder(folder: Path, **changes: object) -> Path:
    """A corpus of starter texts, a document each, and a workflow file on it."""
    (folder / "corpus").mkdir(parents=True)
    rows = (STARTER / "train.jsonl").read_text(encoding="utf-8").splitlines()[:120]
    (folder / "corpus" / "a.txt").write_text("\n\n".join(json.loads(row)["text"] for row in rows), encoding="utf-8")
    write(folder, "pretrain.yaml", {**WORKFLOW, **changes})
    return folder


def curve_of(folder: Path) -> dict:
    store = open_store(folder / ".vocabsem" / "store")
    return next(a for a in store.artifacts() if a.manifest["step"] == "pretrain").json("curve.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which the workflow was run in one process, and what `run --json` printed."""
    folder = make_folder(tmp_path_factory.mktemp("pretrain"))
    return folder, cli_json(folder, "run", "pretrain.yaml", "--executor", "inline")


def test_the_results_are_bits_per_byte_of_each_text(made):
    folder, document = made
    assert document["steps"] == {"ran": 7, "cached": 0, "failed": 0}
    assert {result["task"]: result["metric"] for result in document["results"]} == {
        "held-out": "bits_per_byte",
        "starter-topics": "bits_per_byte",
    }
    assert all(1 < result["low"] <= result["mean"] <= result["high"] < 8 for result in document["results"])
    curve = curve_of(folder)
    assert len(curve["loss"]) == STEPS
    assert curve["loss"][-1] < curve["loss"][0] - 0.3


def test_run_again_it_is_cached_without_torch(made):
    folder, document = made
    called = "from workflows.cli.app import app; app(sys.argv[1:], standalone_mode=False)"
    program = f"import sys; {called}; print(sys.modules.keys())"
    command = [sys.executable, "-c", program, "run", "pretrain.yaml", "--executor", "inline"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "0 steps ran, 7 cached" in done.stdout
    assert not [name for name in ("torch", "ray", "mlflow", "transformers") if f"'{name}'" in done.stdout]
    assert f"run {document['run_id']}" in done.stdout


def test_the_models_folder_has_a_card_and_serves_a_comparison(made):
    folder, _ = made
    card = (folder / "models" / "tiny" / "README.md").read_text(encoding="utf-8")
    assert "Starter texts, CC0." in card
    assert "100 of 100 steps of 2 x 32 tokens" in card
    assert "| held-out |" in card
    assert read_card(folder / "models" / "tiny").losses == [round(loss, 3) for loss in curve_of(folder)["loss"]]
    weights = load_file(folder / "models" / "tiny" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float16"}
    compare = {
        "workflow": "compare",
        "models": ["models/tiny"],
        "tasks": ["starter-sentiment"],
        "methods": ["affinity"],
        "limit": {"test": 20},
    }
    found = cli_json(folder, "run", write(folder, "compare.yaml", compare), "--executor", "inline")
    assert found["steps"]["failed"] == 0
    assert found["results"][0]["n_test"] == 20


def test_mlflow_has_the_curves_and_show_the_results(made):
    folder, document = made
    client = MlflowClient(default_uri(folder / ".vocabsem" / "store"))
    run = client.get_run(document["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["width"] == "16"
    curve = curve_of(folder)
    for name in ("loss", "learning_rate", "tokens_per_second"):
        history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda entry: entry.step)
        assert [entry.value for entry in history] == curve[name]
    before = len(client.get_metric_history(run.info.run_id, "loss"))
    cli(folder, "sync", document["run_id"])
    assert len(client.get_metric_history(run.info.run_id, "loss")) == before
    assert "held-out   (bits_per_byte" in cli(folder, "show", document["run_id"]).stdout


def test_the_plan_and_validate_know_the_workflow(made):
    folder, _ = made
    assert "7 cached, 0 to run" in cli(folder, "plan", "pretrain.yaml", "--tree").stdout
    assert "the corpus has" in cli(folder, "validate", "pretrain.yaml").stdout


def test_killed_on_ray_it_goes_on_in_one_process_from_its_checkpoint_and_comes_to_the_same(made, tmp_path):
    """The driver is killed once a checkpoint is there, of which two workers shared each batch."""
    folder = make_folder(tmp_path / "killed", execution={"checkpoint_steps": 10, "workers": 2, "cores": 1})
    driver, scratch = cli_begun(folder, "run", "pretrain.yaml"), folder / ".vocabsem" / "store" / "scratch"
    driver.wait_for(lambda: list(scratch.glob("pretrain/*/checkpoint-*")))
    driver.send(signal.SIGKILL)
    driver.end()
    time.sleep(3)  # its workers go when they miss it
    document = cli_json(folder, "run", "pretrain.yaml", "--executor", "inline")
    assert document["steps"]["failed"] == 0
    assert not list(scratch.glob("pretrain/*"))
    assert curve_of(folder)["loss"] == pytest.approx(curve_of(made[0])["loss"], rel=1e-3)
    [whole], [killed] = (
        [result["mean"] for result in results if result["task"] == "held-out"]
        for results in (made[1]["results"], document["results"])
    )
    assert killed == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"vocabulary": 30_000}, r"supports a vocabulary of"),
        (
            {
                "model": {"width": 16, "heads": 2, "context": 65536},
                "training": {"tokens": 65536, "batch_tokens": 65536},
            },
            "fills no row of 65536 tokens",
        ),
        ({"corpus": {"files": ["corpus/none.txt"]}}, "no file matches 'corpus/none.txt'"),
        ({"corpus": {"files": ["corpus/empty.txt"]}}, "the corpus has 0 pieces of text"),
        ({"corpus": {"files": ["corpus/bytes.txt"]}}, "line 2: not UTF-8 text"),
        ({"training": {"tokens": 6400, "batch_tokens": 64, "learning_rate": 1e9}}, "the loss is not a number"),
        ({"output": "corpus"}, "holds something else; move it away"),
        ({"output": "pretrain.yaml/model"}, "The model is safe in"),
    ],
)
def test_a_users_mistake_is_told_with_status_2(tmp_path, changes, told):
    folder = make_folder(tmp_path / "mistake", **changes)
    (folder / "corpus" / "empty.txt").write_text("\n\n")
    (folder / "corpus" / "bytes.txt").write_bytes(b"fine\nnot \xff fine\n")
    if "corpus" not in changes:
        (folder / "corpus" / "empty.txt").unlink()
        (folder / "corpus" / "bytes.txt").unlink()
    done = cli(folder, "run", "pretrain.yaml", "--executor", "inline", check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "models").exists()
