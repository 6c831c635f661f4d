"""The compare workflow from YAML file to results, by the command line as a user calls it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.store.artifacts import open_store
from tests.integration.workspace import METHODS, REPOSITORY, TASK, WORKFLOW, cli, write
from workflows.config.compare import CompareConfig
from workflows.config.yaml_file import read_yaml
from workflows.session import open_session, run


def plan(folder: Path, file: str) -> dict[str, dict]:
    steps = json.loads(cli(folder, "plan", file, "--json").stdout)["steps"]
    return {step["name"]: step for step in steps}


def names(steps: dict[str, dict], state: str) -> set[str]:
    return {name for name, step in steps.items() if step["state"] == state}


def test_the_document_has_a_line_for_every_method_and_says_what_ran(finished):
    _, document = finished
    assert set(document) == {"run_id", "steps", "results", "mlflow_run_id", "seconds", "notes"}
    assert document["steps"]["cached"] == document["steps"]["failed"] == 0
    assert [line["method"] for line in document["results"]] == METHODS
    for line in document["results"]:
        assert (line["model"], line["task"], line["n_test"], line["seeds"]) == ("reference", "small", 30, [0, 1])
        assert line["low"] <= line["mean"] <= line["high"]
        assert (line["sd_seeds"] is None) == (line["method"] != "calibration")


def test_the_second_run_is_cached_and_imports_nothing_heavy(finished):
    folder, first = finished
    program = (
        "import sys; sys.argv = ['vocabsem', 'run', 'workflow.yaml', '--json']\n"
        "from workflows.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'ray', 'mlflow', 'transformers', 'datasets') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, env=environment)
    document, imported = done.stdout.splitlines()
    again = json.loads(document)
    assert again["steps"] == {"ran": 0, "cached": first["steps"]["ran"], "failed": 0}
    for name in ("run_id", "results", "mlflow_run_id"):
        assert again[name] == first[name]
    assert imported == "[]"


def test_ray_gives_the_results_inline_gave(finished, tmp_path, ray_cluster):
    folder, first = finished
    config = read_yaml(folder / "workflow.yaml", CompareConfig)
    session = open_session(config, folder / "workflow.yaml", open_store(tmp_path / "store"), None, None)
    report = run(session, lambda _: None)
    assert (report.run_id, report.counts) == (first["run_id"], first["steps"])
    # Threads and batches differ, so a state may differ in its last bits and one row in thirty change sides.
    means = [line["mean"] for line in first["results"]]
    assert [result.mean for result, _ in report.results] == pytest.approx(means, abs=0.07)


def test_a_changed_template_reruns_encoding_and_what_reads_it_and_is_named(finished):
    folder, _ = finished
    write(folder, "opinion.yaml", {**TASK, "template": "Opinion: {text}\nSentiment:"})
    steps = plan(folder, write(folder, "changed-template.yaml", {**WORKFLOW, "tasks": ["opinion.yaml"]}))
    why = steps["encode reference small test"]["why"]
    assert why == 'template "Review: {text}\\nSentiment:" -> "Opinion: {text}\\nSentiment:"'
    assert {name.split()[0] for name in names(steps, "cached")} == {"texts", "labels", "head", "basis", "spectrum"}
    assert steps["fit reference small linear-probe seed 0"]["state"] == "run"


def test_a_changed_label_reruns_no_encoding(finished):
    folder, _ = finished
    first, *rest = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    row["label"] = "positive" if row["label"] == "negative" else "negative"
    (folder / "relabelled.jsonl").write_text("\n".join([json.dumps(row), *rest]) + "\n", encoding="utf-8")
    write(folder, "relabelled-task.yaml", {**TASK, "source": {"train": "relabelled.jsonl", "test": "test.jsonl"}})
    steps = plan(folder, write(folder, "changed-label.yaml", {**WORKFLOW, "tasks": ["relabelled-task.yaml"]}))
    assert {name.split()[0] for name in names(steps, "run")} == {"labels", "search", "fit", "score", "versus", "best"}
    assert steps["labels small train"]["state"] == "run"
    assert steps["labels small test"]["state"] == "cached"
    assert steps["fit reference small affinity seed 0"]["state"] == "cached"


def test_another_seed_or_method_runs_only_itself(finished):
    folder, _ = finished
    one_neighbour = {"method": "knn", "name": "knn-1", "settings": {"k": 1}}
    changed = {**WORKFLOW, "seeds": [0, 1, 2], "methods": [*METHODS, one_neighbour]}
    assert names(plan(folder, write(folder, "wider.yaml", changed)), "run") == {
        "fit reference small calibration seed 2",
        "score reference small calibration",
        "search reference small knn-1",
        "fit reference small knn-1 seed 0",
        "score reference small knn-1",
        *(f"versus calibration reference small {name}" for name in (*METHODS, "knn-1") if name != "calibration"),
        "best reference small",
    }


def test_another_method_reruns_nothing_else(finished):
    folder, _ = finished
    wider = write(folder, "one-more.yaml", {**WORKFLOW, "methods": [*METHODS, "centroid"]})
    ran = names(plan(folder, wider), "run") - {"best reference small"}  # which one that is depends on all
    assert {name.split()[-1] for name in ran} == {"centroid", "0"}
    assert {name.split()[0] for name in names(plan(folder, wider), "run")} == {"fit", "score", "versus", "best"}


def test_verdicts_and_costs_come_with_the_results(finished):
    """Trials are counted in the records of the searches: all tunable methods had the same."""
    folder, document = finished
    for line in document["results"]:
        versus = line["versus"]
        assert (versus is None) == (line["method"] == "calibration")
        best = max(document["results"], key=lambda one: one["mean"])
        if (to_best := line["to_best"]) is None:
            assert line["mean"] == best["mean"]
        else:
            assert to_best["mean"] == pytest.approx(line["mean"] - best["mean"])
            assert to_best["p"] <= to_best["p_holm"]
        assert line["seconds"] >= line["encode_seconds"] + line["fit_seconds"] > line["fit_seconds"] > 0
        assert line["peak_bytes"] > 0
        assert line["fit_bytes"] > 0
        assert line["states_bytes"] > 0
        if versus is not None:
            assert versus["low"] <= versus["mean"] <= versus["high"]
            assert 0 < versus["p"] <= versus["p_holm"] <= 1
            (one, *_) = versus["by_seed"]
            assert len(versus["by_seed"]) == 2  # each seed of `calibration`
            assert one["won"] + one["lost"] <= 30
    stored = json.loads(next((folder / ".vocabsem/store/runs").glob("*/results.json")).read_text())
    trials = [
        json.loads(path.read_text())["trials"] for path in (folder / ".vocabsem/store").glob("search/*/trials.json")
    ]
    assert {len(one) for one in trials} == {2}
    assert {line["trials"] for line in stored} == {None, 2}
    assert {line["budget"] for line in stored} == {None, 2}
    for line in stored:
        assert sum(map(sum, line["confusion"])) == 30 * len(line["settings"])


@pytest.mark.parametrize(
    "change",
    [{"execution": {"batch_tokens": 64, "encoders": 2, "executor": "inline"}}, {"experiment": "another"}],
)
def test_how_it_is_executed_and_tracked_changes_no_key(finished, change):
    folder, _ = finished
    assert names(plan(folder, write(folder, "elsewhere.yaml", {**WORKFLOW, **change})), "cached") == set(
        plan(folder, "workflow.yaml")
    )


def test_a_flipped_bit_is_found_by_verify_and_refused_by_the_step_that_reads_it(finished, own_store):
    folder, _ = finished
    store = ["--store", str(own_store)]
    clean = json.loads(cli(folder, "verify", "--json", *store).stdout)
    assert clean["checked"] > 20
    assert clean["damaged"] == []
    shard = max(own_store.glob("encode/*/part-00000.arrow"), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = cli(folder, "verify", "--json", *store, check=False)
    assert done.returncode == 1
    assert [damage["file"] for damage in json.loads(done.stdout)["damaged"]] == [str(shard)]
    more = write(folder, "more-seeds.yaml", {**WORKFLOW, "seeds": [0, 1, 2]})
    done = cli(folder, "run", more, "--executor", "inline", *store, check=False)
    assert done.returncode == 1
    assert f"{shard}: found checksum" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_truncated_file_blocks_its_step_and_the_run_says_which_file(finished, own_store):
    folder, _ = finished
    shard = next(own_store.glob("basis/*/part-00000.arrow"))
    shard.write_bytes(shard.read_bytes()[:-100])
    done = cli(folder, "run", "workflow.yaml", "--executor", "inline", "--store", str(own_store), check=False)
    assert done.returncode == 1
    assert f"{shard}: found" in done.stderr
    assert "Remove the folder" in done.stderr


def test_a_removed_artifact_is_made_again_with_the_same_bytes(finished, own_store):
    folder, _ = finished
    shard = next(own_store.glob("encode/*/part-00000.arrow"))
    before = shard.read_bytes()
    shutil.rmtree(shard.parent)
    done = cli(folder, "run", "workflow.yaml", "--executor", "inline", "--json", "--store", str(own_store))
    assert json.loads(done.stdout)["steps"]["ran"] == 1
    assert shard.read_bytes() == before


def test_ls_lists_what_the_store_holds(finished):
    folder, document = finished
    rows = json.loads(cli(folder, "ls", "--json").stdout)["artifacts"]
    assert len(rows) == document["steps"]["ran"]
    states = [row["rows"] for row in rows if row["step"] == "encode"]
    assert sorted(states) == [30, 60]


def test_a_users_mistake_ends_in_its_message_and_status_2(finished):
    folder, _ = finished
    file = write(folder, "mistake.yaml", {**WORKFLOW, "methods": ["kn"]})
    done = cli(folder, "run", file, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: mistake.yaml:2: unknown method 'kn'; did you mean 'knn'?")


def test_a_mistake_found_while_running_names_the_way_to_go_on(finished, tmp_path):
    folder, _ = finished
    words = {"negative": "bad", "positive": "bad"}
    write(folder, "same-words.yaml", {**TASK, "words": words})
    file = write(folder, "failing.yaml", {**WORKFLOW, "tasks": ["same-words.yaml"]})
    done = cli(folder, "run", file, "--executor", "inline", "--store", str(tmp_path / "store"), check=False)
    assert done.returncode == 2
    assert "labels 'negative' and 'positive' have the same tokens" in done.stderr
    assert "resume with:  vocabsem run failing.yaml" in done.stderr
    assert "linear-probe" in done.stdout  # what does not need label words is done all the same


def test_the_neighbour_methods_answer_from_the_same_cache(finished, own_store):
    """None of them runs the language model."""
    file = write(finished[0], "neighbours.yaml", {**WORKFLOW, "methods": ["centroid", "knn-lm", "knn-prompting"]})
    assert not {name for name in names(plan(finished[0], file), "run") if name.split()[0] in ("encode", "head")}
    inline = ["--executor", "inline", "--store", str(own_store)]
    document = json.loads(cli(finished[0], "run", file, "--json", *inline).stdout)
    assert [line["method"] for line in document["results"]] == ["centroid", "knn-lm", "knn-prompting"]
    assert document["steps"]["failed"] == 0
    assert all(0 <= line["mean"] <= 1 and line["n_test"] == 30 for line in document["results"])


ROWS = ("4 rows per class", "8 rows per class", "all rows")


def test_training_sizes_share_the_encoding_and_make_a_learning_curve(finished, own_store):
    folder, _ = finished
    several = {**WORKFLOW, "methods": ["zero-shot", "centroid", "linear-probe"], "train_size": [4, 8, "full"]}
    file = write(folder, "sizes.yaml", {**several, "reference_method": "centroid", "search": {"trials": 0}})
    planned = plan(folder, file)
    assert not {name for name in names(planned, "run") if name.split()[0] in ("encode", "texts", "labels")}
    assert [name for name in planned if "zero-shot" in name and name.startswith("score")] == [
        "score reference small zero-shot all rows"
    ]
    assert {name for name in planned if name.startswith("versus")} == {
        "versus centroid reference small zero-shot all rows",
        *(f"versus centroid reference small linear-probe {size}" for size in ROWS),
    }
    inline = ["--executor", "inline", "--store", str(own_store)]
    document = json.loads(cli(folder, "run", file, "--json", *inline).stdout)
    assert document["steps"]["failed"] == 0
    sizes = {(line["method"], line["train_size"]) for line in document["results"]}
    assert sizes == {
        ("zero-shot", "full"),
        *((method, size) for method in ("centroid", "linear-probe") for size in (4, 8, "full")),
    }
    record = own_store / "runs" / document["run_id"]
    assert "Learning curves" in (record / "report.html").read_text(encoding="utf-8")
    shown = cli(folder, "run", file, *inline).stdout
    assert sum(bool(re.match(r" *centroid +0\.\d{3} ", line)) for line in shown.splitlines()) == 1
    assert "0 steps ran" in shown


def test_an_unknown_reference_method_is_told_with_file_line_and_the_nearest(finished):
    folder, _ = finished
    file = write(folder, "reference.yaml", {**WORKFLOW, "reference_method": "calibratoin"})
    done = cli(folder, "run", file, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    lines = (folder / file).read_text().splitlines()
    number = next(place for place, line in enumerate(lines, start=1) if line.startswith("reference_method"))
    told = f"error: reference.yaml:{number}: reference_method names 'calibratoin', which is not in `methods`"
    assert done.stderr.startswith(told)
    assert "did you mean 'calibration'?" in done.stderr
