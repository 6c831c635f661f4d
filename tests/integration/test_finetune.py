"""Finetuning on real Ray: two workers share each batch, and a killed fit goes on from its checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open

from orchestration.store import open_store
from tests.integration.workspace import REPOSITORY, cli_json, make_workspace, write
from workflows.materials import read_column

WORKFLOW = {
    "workflow": "compare",
    "models": ["reference-1m"],
    "tasks": ["small.yaml"],
    "methods": [{"method": "lora", "settings": {"epochs": 3, "patience": 3}}],
    "seeds": [0, 1],
    "search": {"trials": 0},
    "execution": {"trainers": 2, "cores_per_trainer": 1},
}


def artifacts(folder, step):
    store = open_store(folder / ".vocabsem" / "store")
    return [artifact for artifact in store.artifacts() if artifact.manifest["step"] == step]


def job(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["fit"])


def test_killed_it_goes_on_without_the_finished_seed_and_comes_to_the_same(tmp_path):
    """The driver is killed once the first seed is done."""
    folders = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        folders.append(make_workspace(tmp_path / name))
        write(folders[-1], "lora.yaml", WORKFLOW)
    whole, killed = folders
    first = cli_json(whole, "run", "lora.yaml", "--executor", "inline")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "workflows", "run", "lora.yaml"]
    driver = subprocess.Popen(
        command, cwd=killed, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    scratch, deadline = killed / ".vocabsem" / "store" / "scratch", time.monotonic() + 200
    while not list(scratch.glob("finetune/*/jobs/seed-0.safetensors")):
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(3)  # its workers go when they miss it
    (done,) = scratch.glob("finetune/*/jobs/seed-0.safetensors")
    told_before = job(done)
    found = cli_json(killed, "run", "lora.yaml")
    assert found["steps"]["failed"] == 0
    assert not list(scratch.glob("finetune/*"))
    (ours,), (theirs,) = artifacts(killed, "finetune"), artifacts(whole, "finetune")
    assert {name: ours.json("fits.json")["0"][name] for name in told_before} == told_before  # its seconds, too
    assert [made["workers"] for made in ours.manifest["numerics"]] == [2]
    assert all(line["costs"]["peak_rss"] > 1 << 20 for line in (*found["results"], *first["results"]))
    told, expected = ours.json("fits.json"), theirs.json("fits.json")
    for seed in ("0", "1"):
        assert told[seed]["losses"] == pytest.approx(expected[seed]["losses"], rel=1e-2)
    ours_scores, their_scores = read_column(ours, "scores"), read_column(theirs, "scores")
    assert np.abs(ours_scores - their_scores).max() < 0.05
    assert [line["seeds"] for line in found["results"]] == [line["seeds"] for line in first["results"]] == [[0, 1]]
