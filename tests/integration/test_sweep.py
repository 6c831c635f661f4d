"""The `sweep` workflow, as a user runs it: searched, confirmed, tracked, resumed after a kill; and users' mistakes."""

import json
import shutil
import signal
from contextlib import suppress

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from orchestration.tracking.mlflow_client import KEY_TAG, default_uri
from tests.integration.workspace import TASK, cli, cli_begun, cli_json, make_workspace, write

SWEEP = {
    "workflow": "sweep",
    "name": "small",
    "model": "reference",
    "task": "small.yaml",
    "method": "calibration",
    "settings": {"epochs": 15, "patience": 15},
    "space": {"learning_rate": {"log_uniform": [1e-4, 0.3]}, "rank": {"choice": [4, 8]}},
    "search": {"trials": 6},
    "confirm": {"best": 2},
    "execution": {"pack": 2},
}


def sweep_file(folder, **changes):
    return write(folder, f"{changes.get('name', 'small')}-sweep.yaml", {**SWEEP, **changes})


def tracked(store):
    """Every run of every experiment, by key; none may stand twice."""
    client = MlflowClient(default_uri(store))
    found = client.search_runs([one.experiment_id for one in client.search_experiments()], max_results=1000)
    keys = [run.data.tags[KEY_TAG] for run in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder with a small task, swept in one process; and what `sweep --json` printed."""
    folder = make_workspace(tmp_path_factory.mktemp("sweep"))
    return folder, cli_json(folder, "sweep", sweep_file(folder), "--executor", "inline")


def test_every_configuration_has_a_record_and_a_run_in_mlflow(swept):
    folder, document = swept
    records = document["configurations"]
    assert len({record["key"] for record in records}) == len(records) == 6
    assert [record["ended"] for record in records] == ["finished"] * 6
    assert records[0]["settings"]["learning_rate"] == 1e-3  # the defaults come first
    assert all(len(record["curve"]) == 15 for record in records)
    runs = tracked(folder / ".vocabsem" / "store")
    parent = runs[document["run_id"]]
    for record in records:
        run = runs[f"{document['run_id']}:{record['key']}"]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["validation"] == record["validation"]
        assert run.data.params["rank"] == str(record["settings"]["rank"])
        assert run.info.status == "FINISHED"
    files = {
        file.path
        for file in MlflowClient(default_uri(folder / ".vocabsem" / "store")).list_artifacts(parent.info.run_id)
    }
    assert {"parallel-coordinates.svg", "importance.svg", "best.yaml", "configurations.json"} <= files


def test_the_best_are_confirmed_with_fresh_seeds_beside_the_defaults(swept):
    _, document = swept
    results = document["results"]
    assert {"calibration: defaults"} < {result["method"] for result in results}
    assert [result["mean"] for result in results] == sorted((r["mean"] for r in results), reverse=True)
    assert {tuple(result["seeds"]) for result in results} == {(1, 2, 3, 4)}
    assert {result["n_test"] for result in results} == {48}  # four fifths of 60: not those the search chose by
    assert {result["rows"] for result in results} == {"validation"}
    assert any("within noise" in note or "more than noise" in note for note in document["notes"])


def test_the_best_settings_are_a_workflow_that_compare_runs(swept):
    folder, document = swept
    printed = cli(folder, "sweep", "small-sweep.yaml", "--best").stdout
    methods = yaml.safe_load(printed)["methods"]
    named = document["results"][0]["method"]
    stored = folder / ".vocabsem" / "store" / "runs" / document["run_id"] / "results.json"
    winner = json.loads(stored.read_text())[0]
    assert winner["method"] == named
    if named == "calibration: defaults":
        assert [method["name"] for method in methods] == ["calibration-defaults"]
    else:
        assert [method["name"] for method in methods] == ["calibration-defaults", "calibration-best"]
        assert winner["settings"]["1"] == methods[1]["settings"]
    (folder / "best.yaml").write_text(printed, encoding="utf-8")
    compared = cli_json(folder, "run", "best.yaml", "--executor", "inline")
    assert [result["method"] for result in compared["results"]] == [method["name"] for method in methods]
    assert compared["steps"]["failed"] == 0


def test_again_it_is_cached_and_the_plan_and_validate_know_it(swept):
    folder, _ = swept
    assert cli_json(folder, "sweep", "small-sweep.yaml")["steps"]["ran"] == 0
    assert "0 to run" in cli(folder, "plan", "small-sweep.yaml").stdout
    assert "valid" in cli(folder, "validate", "small-sweep.yaml").stdout
    assert "calibration: defaults" in cli(folder, "run", "small-sweep.yaml").stdout


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {}}, "nothing to search"),
        ({"space": {"ranks": {"choice": [4]}}}, "did you mean 'rank'?"),
        ({"space": {"epochs": {"integer": [2, 5]}}}, "searched and fixed at 15"),
        ({"space": {"rank": {"uniform": [4, 8]}}}, "use integer or choice"),
        ({"space": {"dropout": {"choice": [0.1, 1.5]}}}, "holds 1.5"),
        ({"space": {"rank": {"choice": [4], "integer": [1, 2]}}}, "rank.integer is given with choice"),
        ({"method": "knn", "settings": {}, "space": None, "search": {"stopping": "asha"}}, "never reports a loss"),
        ({"search": {"algorithm": "grid"}}, "a grid needs values"),
        ({"layer": "layer_00"}, "is not stored"),
    ],
)
def test_a_mistake_is_told_with_file_and_line_and_no_traceback(swept, tmp_path, changes, told):
    folder, _ = swept
    file = write(folder, "wrong.yaml", {**SWEEP, **changes})
    for command in ("sweep", "validate"):
        done = cli(folder, command, file, check=False)
        assert done.returncode == 2
        assert told in done.stderr + done.stdout
        assert "wrong.yaml:" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr


def test_on_ray_with_optuna_and_early_stopping_every_configuration_is_tried_once(swept):
    folder, _ = swept
    search = {"trials": 12, "algorithm": "optuna", "stopping": "asha", "grace": 1}
    file = sweep_file(folder, name="optuna", search=search, settings={"epochs": 9})
    records = cli_json(folder, "sweep", file)["configurations"]
    assert len({record["key"] for record in records}) == len(records) == 12
    assert {record["ended"] for record in records} == {"finished", "stopped"}
    assert all(len(record["curve"]) < 9 for record in records if record["ended"] == "stopped")


def test_ray_and_one_process_come_to_the_same(swept):
    folder, document = swept
    shutil.copytree(folder / ".vocabsem", folder / "other")
    for step in ("sweep", "confirm"):
        shutil.rmtree(folder / "other" / "store" / step)
    records = cli_json(folder, "sweep", "small-sweep.yaml", "--store", "other/store")["configurations"]
    for ours, theirs in zip(document["configurations"], records, strict=True):
        assert ours["key"] == theirs["key"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-3)


def workers_of(driver: int) -> list[psutil.Process]:
    """Ray's, without its agents."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that starts a worker is gone at once
            if "ray::" in (name := process.name()) and "Agent" not in name:
                found.append(process)
    return found


def test_killed_in_the_middle_it_goes_on_and_repeats_and_doubles_nothing(swept):
    """Killed on Ray after two packs, it goes on in one process; a mark left in their records is there at the end."""
    folder, _ = swept
    file = sweep_file(folder, name="killed", settings={"epochs": 60, "patience": 60}, search={"trials": 16})
    store = folder / ".vocabsem" / "store"
    driver = cli_begun(folder, "sweep", file)
    packs = "scratch/sweep/*/packs/[!.]*.json"  # a file that is being written begins with a dot
    driver.wait_for(lambda: len(list(store.glob(packs))) >= 2)
    workers = workers_of(driver.pid)
    assert workers
    driver.send(signal.SIGKILL)
    driver.end()
    assert psutil.wait_procs(workers, timeout=60)[1] == []  # they go when they miss it
    kept = list(store.glob(packs))
    assert 2 <= len(kept) < 8, "nothing was left to do"
    finished = {path: json.loads(path.read_text()) for path in kept}
    for path, records in finished.items():
        path.write_text(json.dumps([{**record, "error": "kept"} for record in records]))
    document = cli_json(folder, "sweep", file, "--executor", "inline")
    records = document["configurations"]
    assert len({record["key"] for record in records}) == len(records) == 16
    assert sum(record["error"] == "kept" for record in records) == sum(map(len, finished.values()))
    runs = tracked(store)
    children = [key for key in runs if key.startswith(f"{document['run_id']}:")]
    assert len(children) == 16
    assert {runs[key].info.status for key in [document["run_id"], *children]} == {"FINISHED"}
    assert not list(store.glob("scratch/sweep/*"))


def test_a_mistake_that_a_worker_finds_is_told_in_its_own_words(swept):
    """A class without training rows, in one process, and on Ray, where the words cross two."""
    folder, _ = swept
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    kept = [row for row in rows if row["label"] != rows[0]["label"]]
    (folder / "few.jsonl").write_text("\n".join(map(json.dumps, kept)), encoding="utf-8")
    write(folder, "few.yaml", {**TASK, "name": "few", "source": {**TASK["source"], "train": "few.jsonl"}})
    file = sweep_file(folder, name="few", task="few.yaml")
    for executor in ("inline", "ray"):  # the second finds all but the search done
        done = cli(folder, "sweep", file, "--executor", executor, check=False)
        assert done.returncode == 2
        assert "has no training row" in done.stderr
        assert "Traceback" not in done.stderr
