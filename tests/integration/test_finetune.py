"""Finetuning on real Ray: two workers share each batch, and go on from the checkpoint of a fit that was killed."""

import json
import shutil
import signal

import numpy as np
import pytest

from orchestration.store.artifacts import open_store
from tests.integration.workspace import cli_begun, cli_json, make_workspace, write
from workflows.methods.inputs.states import read_column

WORKFLOW = {
    "workflow": "compare",
    "models": ["reference-1m"],
    "tasks": ["small.yaml"],
    "methods": [{"method": "lora", "settings": {"learning_rate": 1e-4, "epochs": 20, "patience": 20}}],
    "seeds": [0],
    "search": {"trials": 0},
    "execution": {"trainers": 2, "cores_per_trainer": 1},
}


def fit_of(folder):
    store = open_store(folder / ".vocabsem" / "store")
    (found,) = (artifact for artifact in store.artifacts() if artifact.manifest["step"] == "finetune")
    return found


def test_killed_in_one_process_it_goes_on_with_two_workers_and_comes_to_the_same(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    write(make_workspace(whole), "lora.yaml", WORKFLOW)
    first = cli_json(whole, "run", "lora.yaml", "--executor", "inline")
    shutil.copytree(whole, killed)
    for kind in ("finetune", "score"):  # what comes before stays
        shutil.rmtree(killed / ".vocabsem" / "store" / kind)
    driver = cli_begun(killed, "run", "lora.yaml", "--executor", "inline")
    scratch = killed / ".vocabsem" / "store" / "scratch"
    driver.wait_for(lambda: list(scratch.glob("finetune/*/checkpoint-*")))
    driver.send(signal.SIGKILL)
    driver.end()
    assert not list(scratch.glob("finetune/*/done.safetensors")), "it was to be killed in the middle"
    for spent in scratch.glob("finetune/*/checkpoint-*/spent.json"):  # as if it had taken very long
        spent.write_text(json.dumps({**json.loads(spent.read_text()), "seconds": 5000.0}))
    found = cli_json(killed, "run", "lora.yaml")
    assert found["steps"]["failed"] == 0
    assert not list(scratch.glob("finetune/*"))
    ours, theirs = fit_of(killed), fit_of(whole)
    assert ours.json("provenance.json")["work_seconds"] > 5000 > theirs.json("provenance.json")["work_seconds"]
    assert [made["workers"] for made in ours.manifest["numerics"]] == [2]
    assert all(line["peak_bytes"] > 1 << 20 for line in (*found["results"], *first["results"]))
    assert ours.json("fit.json")["losses"] == pytest.approx(theirs.json("fit.json")["losses"], rel=1e-2)
    assert np.abs(read_column(ours, "scores") - read_column(theirs, "scores")).max() < 0.05
    assert [line["seeds"] for line in found["results"]] == [line["seeds"] for line in first["results"]] == [[0]]
