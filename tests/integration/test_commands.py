"""The commands that look at a store, check a file and fill MLflow, as a user calls them."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress

import pytest
from mlflow import MlflowClient

from orchestration.store.artifacts import open_store
from orchestration.tracking.mlflow_client import default_uri
from tests.integration.workspace import METHODS, REPOSITORY, TASK, WORKFLOW, cli, cli_json, write


def artifact_of(folder, step):
    return next(row for row in cli_json(folder, "ls")["artifacts"] if row["step"] == step)


def test_show_tells_of_an_artifact_and_of_a_run(finished):
    folder, document = finished
    basis = artifact_of(folder, "basis")
    found = cli_json(folder, "show", basis["key"][:6])
    assert (found["step"], found["rows"]) == ("basis", basis["rows"])
    head = open_store(folder / ".vocabsem" / "store").root / "head"
    assert found["inputs"]["head"]["folder"] == str(next(head.iterdir()))
    run = cli_json(folder, "show", document["run_id"][:6])
    assert run["steps"] == document["steps"]["ran"]
    assert run["mlflow_run_id"] == document["mlflow_run_id"]
    text = cli(folder, "show", f"runs/{document['run_id']}").stdout
    assert "workflow: compare" in text
    assert "95 % interval" in text


def test_why_names_the_nearest_other_and_the_run(finished):
    folder, document = finished
    test = next(row for row in cli_json(folder, "ls")["artifacts"] if row["step"] == "encode" and row["rows"] == 30)
    found = cli_json(folder, "why", f"encode/{test['key']}")
    assert [change["field"] for change in found["nearest"]["changes"]] == ["inputs.texts"]
    assert {"run_id": document["run_id"], "label": "encode reference small test"} in found["runs"]
    assert "└─ texts: texts/" in cli(folder, "why", test["key"]).stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["show", "abc"], "expected at least the first 4"),
        (["why", "zzzz"], "no artifact 'zzzz'"),
        (["diff", "latest", "zzzz"], "no run 'zzzz'"),
        (["basis", "referense"], "did you mean 'reference'?"),
        (["basis", "reference", "--word", " "], "expected a word"),
        (["plan", "workflow.yaml", "--tree", "--json"], "give one of them"),
    ],
)
def test_a_users_mistake_is_told_with_status_2(finished, arguments, part):
    done = cli(finished[0], *arguments, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_name_is_told_with_file_and_line(finished):
    folder, _ = finished
    for field, value, told in (
        ("methods", ["affinity", "kn"], "did you mean 'knn'?"),
        ("tasks", ["small.yaml", "starter-topic"], "did you mean 'starter-topics'?"),
        ("models", ["referense"], "did you mean 'reference'?"),
    ):
        write(folder, "typo.yaml", {**WORKFLOW, field: value})
        lines = (folder / "typo.yaml").read_text().splitlines()
        line = 1 + next(number for number, text in enumerate(lines) if text == f"- {value[-1]}")
        done = cli(folder, "plan", "typo.yaml", check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: typo.yaml:{line}: ")
        assert told in done.stderr
        found = cli(folder, "validate", "typo.yaml", "--json", check=False)
        assert json.loads(found.stdout)["problems"] == [done.stderr.removeprefix("error: ").rstrip()]


def test_ls_lists_artifacts_and_runs(finished):
    folder, document = finished
    assert document["run_id"] in [run["run_id"] for run in cli_json(folder, "ls")["runs"]]
    assert f"run         {document['run_id']}  started 20" in cli(folder, "ls").stdout


def test_ui_refuses_a_port_that_is_taken(finished):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli(finished[0], "ui", "--port", str(port), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}")


def test_a_damaged_artifact_is_status_1(finished, own_store):
    shard = next(own_store.glob("basis/*/part-00000.arrow"))
    shard.write_bytes(b"short")
    done = cli(finished[0], "show", shard.parent.name, "--store", str(own_store), check=False)
    assert done.returncode == 1
    assert "part-00000.arrow: found 5 bytes" in done.stderr


def test_validate_agrees_with_the_run(finished):
    folder, _ = finished
    found = cli_json(folder, "validate", "workflow.yaml")
    assert (found["valid"], found["problems"]) == (True, [])
    assert [sum(rows.values()) for rows in found["tasks"][0]["rows"].values()] == [60, 30]
    write(folder, "odd.yaml", {**TASK, "source": {"train": "train.jsonl", "test": "gone.jsonl"}})
    file = write(folder, "invalid.yaml", {**WORKFLOW, "tasks": ["odd.yaml"], "methods": [*METHODS, "kn"]})
    done = cli(folder, "validate", file, check=False)
    assert done.returncode == 2
    assert "unknown method 'kn'; did you mean 'knn'?" in done.stdout
    assert "gone.jsonl for its test rows" in done.stdout
    assert done.stdout.endswith("2 problems in invalid.yaml\n")


def test_basis_reads_the_head_alone_and_is_cached(finished, tmp_path):
    folder, _ = finished
    store = ["--store", str(tmp_path / "store")]
    found = cli_json(folder, "basis", "reference", "--word", "good", "--word", "bad", *store)
    assert (found["cached"], found["rank"], found["rows"]) == (False, found["width"], 8192)
    assert found["round_trip"] > 0.9
    assert list(found["words"]) == ["good", "bad"]
    assert found["cosine"][0][0] == pytest.approx(1.0)
    assert found["cosine"][0][1] == found["cosine"][1][0] < 0.99
    towards = [found["shrunken"][shrinkage]["good"] for shrinkage in ("0.1", "1", "10")]
    assert 1 > towards[0][0] > towards[1][0] > towards[2][0]
    assert towards[0][1] < towards[1][1] < towards[2][1] < 1
    made = {path.name for path in (tmp_path / "store").iterdir() if path.is_dir()}
    assert made - {"scratch"} == {"basis", "head", "leases", "spectrum"}
    assert not [path for path in (tmp_path / "store" / "scratch").rglob("*") if path.is_file()], (
        "progress is taken away"
    )
    again = cli(folder, "basis", "reference", *store)
    assert "now read from the cache" in again.stdout
    assert again.stderr == ""
    assert artifact_of(folder, "basis")["key"] in found["folder"]  # the same step as a run's


def test_the_basis_needs_no_other_tensor_of_the_model(finished, tmp_path):
    """All tensors but the head's are taken out of the file: loading the model would fail."""
    from safetensors.torch import load_file, save_file

    from vocabsem_core.features.checkpoints import head_place

    source = REPOSITORY / "workflows" / "catalog" / "models" / "reference"
    shutil.copytree(source, tmp_path / "headonly")
    name = head_place(source).weight.name
    (weights,) = (tmp_path / "headonly").glob("*.safetensors")
    save_file({name: load_file(weights)[name]}, weights)
    whole, bare = (cli_json(finished[0], "basis", model) for model in ("reference", str(tmp_path / "headonly")))
    assert bare["folder"] == whole["folder"]


def test_diff_names_changed_fields_and_differences_of_results(finished, own_store):
    folder, document = finished
    store = ["--store", str(own_store)]
    file = write(folder, "one-neighbour.yaml", {**WORKFLOW, "methods": ["affinity", "knn"], "search": {"trials": 0}})
    other = cli_json(folder, "run", file, "--executor", "inline", *store)
    found = cli_json(folder, "diff", document["run_id"], "latest", *store)
    assert found["runs"] == [document["run_id"], other["run_id"]]
    assert "encode reference small test" in found["same"]
    assert "search reference small knn" in found["only_a"]
    changed = {step["label"]: step["changes"] for step in found["changed"]}
    fit = "fit reference small knn seed 0"
    assert changed[fit] == [{"field": "inputs.search", "old": "search reference small knn"}]
    rows = {row["method"]: row for row in found["results"]}
    assert (rows["affinity"]["difference"], rows["calibration"]["b"]) == (0.0, None)
    assert "B - A" in cli(folder, "diff", document["run_id"], "latest", *store).stdout


def test_the_plan_can_be_drawn(finished):
    folder, document = finished
    tree = cli(folder, "plan", "workflow.yaml", "--tree").stdout
    assert "score reference small knn   [cached]\n" in tree
    assert "encode reference small test   [cached]   (as above)" in tree
    chart = cli(folder, "plan", "workflow.yaml", "--mermaid").stdout.splitlines()
    assert chart[0] == "flowchart LR"
    assert sum(line.endswith(":::cached") for line in chart) == document["steps"]["ran"]


def test_mlflow_that_was_away_is_filled_in_once(finished, own_store):
    folder, document = finished
    shutil.rmtree(own_store / "runs")
    command = ["run", "workflow.yaml", "--executor", "inline", "--json", "--store", str(own_store)]
    away = cli(folder, *command, "--mlflow", "http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert json.loads(away.stdout)["results"] == document["results"]
    assert "fill it in with `vocabsem sync`" in away.stderr
    assert not (own_store / "runs" / document["run_id"] / "mlflow.json").exists()
    elsewhere = ["--store", str(own_store), "--mlflow", "http://127.0.0.1:9"]
    failed = cli(folder, "sync", *elsewhere, check=False, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert failed.returncode == 1
    assert "error: MLflow at http://127.0.0.1:9" in failed.stderr

    (own_store.parent / "mlflow.db").unlink()
    (first,) = cli_json(folder, "sync", "--store", str(own_store))["runs"]
    assert (first["run_id"], first["state"]) == (document["run_id"], "filled")
    wanted = counted(default_uri(finished[0] / ".vocabsem" / "store"))
    assert counted(default_uri(own_store)) == wanted
    (second,) = cli_json(folder, "sync", "--store", str(own_store))["runs"]
    assert second == {**first, "state": "complete"}
    assert cli_json(folder, "sync", "latest", "--store", str(own_store))["runs"] == [first]
    assert counted(default_uri(own_store)) == wanted


def counted(uri):
    """Each MLflow run by name: its status, numbers of parameters and metric values, artifacts."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("vocabsem")
    found = client.search_runs([experiment.experiment_id])
    return sorted(
        (
            run.info.run_name,
            run.info.status,
            len(run.data.params),
            sum(len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics),
            sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id)),
        )
        for run in found
    )


def test_a_terminal_shows_a_display_instead_of_lines(finished, own_store):
    folder, _ = finished
    shutil.rmtree(next(own_store.glob("basis/*")))
    reader, terminal = os.openpty()
    command = ["run", "workflow.yaml", "--executor", "inline", "--json", "--store", str(own_store)]
    with subprocess.Popen(
        [sys.executable, "-m", "workflows", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "100"},
    ) as process:
        os.close(terminal)
        shown = written_to(reader)
        document = json.load(process.stdout)
    assert document["steps"]["ran"] == 1
    assert "1/1" in shown
    assert "ran      basis" not in shown


def written_to(reader: int) -> str:
    """All that a process writes to its terminal, until it ends."""
    parts = []
    with suppress(OSError), open(reader, "rb", buffering=0) as screen:  # the last writer's end is an error on Linux
        while part := screen.read(1 << 16):
            parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize(("line", "expected"), [("run wor", "workflow.yaml"), ("show lat", "latest")])
def test_the_shell_completes_files_and_runs(finished, line, expected):
    program = "import sys; sys.argv = ['vocabsem']; from workflows.cli.app import main; main()"
    shell = {"_VOCABSEM_COMPLETE": "complete_bash", "COMP_WORDS": f"vocabsem {line}", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=finished[0],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **shell},
    )
    assert done.stdout.split() == [expected]


def test_a_run_leaves_its_report_and_the_command_writes_it_anywhere(finished, tmp_path):
    """Its numbers are those of the results, in MLflow too."""
    folder, document = finished
    record = folder / ".vocabsem" / "store" / "runs" / document["run_id"]
    page = (record / "report.html").read_text(encoding="utf-8")
    for line in document["results"]:
        assert f"{line['mean']:.3f}" in page
        assert f"{line['low']:.3f} to {line['high']:.3f}" in page
    assert (record / "report.md").read_text(encoding="utf-8").startswith("# 5 methods on small with reference")
    given = {f"--{form}": tmp_path / f"report.{form}" for form in ("html", "markdown", "latex")}
    words = [str(word) for pair in given.items() for word in pair]
    done = cli(folder, "report", document["run_id"], *words)
    assert done.stdout.split() == [str(path) for path in given.values()]
    assert given["--html"].read_text(encoding="utf-8") == page
    assert r"\begin{tabular}" in given["--latex"].read_text(encoding="utf-8")
    client = MlflowClient(default_uri(record.parent.parent))
    uploaded = {file.path for file in client.list_artifacts(document["mlflow_run_id"])}
    assert {"report.html", "report.md"} <= uploaded


def test_a_report_of_no_run_is_a_mistake_told(finished, tmp_path):
    done = cli(finished[0], "report", "zzzz", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no run 'zzzz'" in done.stderr
    done = cli(finished[0], "report", "--latex", str(tmp_path / "nowhere" / "a.tex"), check=False)
    assert done.returncode == 2
    assert "make it, or name another file" in done.stderr
