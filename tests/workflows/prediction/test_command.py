"""`vocabsem predict`, `serve` and `export-model` as a person types them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from orchestration.runs.record import runs
from orchestration.store.artifacts import open_store
from tests.workflows.films import TASK
from tests.workflows.prediction.conftest import Finished, finished
from workflows.cli.app import app
from workflows.errors import ConfigError, Interrupted
from workflows.session import ORIGIN

TEXTS = ["a fine film number 3", 'a "dull" film, number 4']


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    methods = ["linear-probe", "zero-shot", {"method": "lora", "settings": {"epochs": 1}}]
    return finished(tmp_path_factory.mktemp("command"), TASK, methods=methods)


def call(run: Finished, *words: Any, stdin: str | None = None) -> Result:
    """The command on the run's store; a mistake is raised as it is."""
    line = [words[0], "latest", *map(str, words[1:]), "--store", str(run.store.root)]
    found = CliRunner().invoke(app, line, input=stdin)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_columns_stand_beside_those_that_were_there(run: Finished, tmp_path: Path) -> None:
    rows = [{"id": f"00{n}", "text": text} for n, text in enumerate(TEXTS)]
    done = call(run, "predict", "--data", write_csv(tmp_path / "new.csv", rows), "--out", tmp_path / "out.csv")
    found = read_csv(tmp_path / "out.csv")
    assert list(found[0]) == ["id", "text", "prediction", "probability", "probability_bad", "probability_good", "far"]
    assert [{name: row[name] for name in ("id", "text")} for row in found] == rows
    assert {row["prediction"] for row in found} <= {"bad", "good"}
    assert "2 rows by " in done.stderr
    assert " validation rows: " in done.stderr
    assert "probabilities at temperature " in done.stderr


def test_every_format_holds_the_same(run: Finished, tmp_path: Path) -> None:
    document = "".join(json.dumps({"text": text, "more": {"a": [1]}}) + "\n" for text in TEXTS)
    (tmp_path / "new.jsonl").write_text(document)
    pq.write_table(pa.table({"text": TEXTS, "when": pa.array([1, 2], pa.timestamp("ms"))}), tmp_path / "new.parquet")
    options = ("--method", "linear-probe", "--data")
    call(run, "predict", *options, tmp_path / "new.jsonl", "--out", tmp_path / "out.jsonl")
    call(run, "predict", *options, tmp_path / "new.parquet", "--out", tmp_path / "out.parquet")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "out.parquet")
    assert lines[0]["more"] == {"a": [1]}
    assert table.schema.field("when").type == pa.timestamp("ms")
    assert [line["prediction"] for line in lines] == table.column("prediction").to_pylist()
    assert [line["probability"] for line in lines] == table.column("probability").to_pylist()


@pytest.mark.parametrize("given", ["csv", "jsonl"])
def test_standard_input_goes_to_standard_output(run: Finished, given: str) -> None:
    csv_text = 'text\n"a fine film number 3"\n'
    text = csv_text if given == "csv" else json.dumps({"text": TEXTS[0]}) + "\n"
    done = call(run, "predict", "--method", "zero-shot", "--data", "-", stdin=text)
    if given == "csv":
        (row,) = csv.DictReader(done.stdout.splitlines())
    else:
        row = json.loads(done.stdout)
    assert row["text"] == TEXTS[0]
    assert row["prediction"] in ("bad", "good")


def test_below_a_probability_there_is_no_prediction(run: Finished, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "new.csv", [{"text": text} for text in TEXTS])
    done = call(run, "predict", "--data", rows, "--out", tmp_path / "out.csv", "--abstain-below", "1.0")
    assert [row["prediction"] for row in read_csv(tmp_path / "out.csv")] == ["", ""]
    assert "no prediction for 2 rows: their probability is below 1" in done.stderr


def test_an_output_that_exists_is_kept_unless_asked(run: Finished, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "new.csv", [{"text": TEXTS[0]}])
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(ConfigError, match="exists; give --overwrite, or another file"):
        call(run, "predict", "--data", rows, "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "mine"
    call(run, "predict", "--data", rows, "--out", tmp_path / "out.csv", "--overwrite")
    assert read_csv(tmp_path / "out.csv")[0]["text"] == TEXTS[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("txt\nfine\n", "no column 'text'; it has 'txt'"),
        ("text\n", "contains no rows"),
        ("text,n\nfine,1\n,2\n", "row 2: column 'text' is ''; expected non-empty text"),
        ("text,prediction\nfine,x\n", "has a column 'prediction', which predictions are written to; rename it"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(run: Finished, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(Exception, match=told):
        call(run, "predict", "--data", tmp_path / "new.csv", "--out", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [("none.csv", "cannot be read|no file"), ("new.xlsx", "expected one of|is none of|cannot read")],
)
def test_a_data_file_that_is_not_there_or_of_another_format_is_told(
    run: Finished, tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "new.xlsx").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=told):
        call(run, "predict", "--method", "zero-shot", "--data", tmp_path / name)


def test_the_other_columns_of_a_file_may_lack_in_some_rows(run: Finished, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "fine", "note": "a"}\n{"text": "dull"}\n')
    call(run, "predict", "--method", "zero-shot", "--data", tmp_path / "new.jsonl", "--out", tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_an_interrupted_command_says_what_is_kept_and_how_to_go_on(
    run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("workflows.prediction.carry_out.run_plan", interrupted)
    monkeypatch.setattr("sys.argv", ["vocabsem", "predict", "latest", "--data", "new.csv"])
    rows = write_csv(tmp_path / "new.csv", [{"text": "never seen before"}])
    with pytest.raises(Interrupted) as raised:
        call(run, "predict", "--method", "zero-shot", "--data", rows)
    assert "steps are done and kept" in str(raised.value)
    assert str(raised.value).endswith("resume with:  vocabsem predict latest --data new.csv")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "linear-prob"), "the run has no method 'linear-prob'; did you mean 'linear-probe'?"),
        (("--task", "film"), "the run has no task 'film'; did you mean 'films'?"),
        (("--seed", "7"), "has no seed 7; it has 0"),
        (("--out", "out.txt"), "cannot write '.txt' files; expected one of .csv, .jsonl, .parquet"),
        (("--out", "nowhere/out.csv"), "no folder nowhere; name another file"),
    ],
)
def test_a_name_that_is_not_there_is_told(run: Finished, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    rows = write_csv(tmp_path / "new.csv", [{"text": TEXTS[0]}])
    with pytest.raises(ConfigError) as raised:
        call(run, "predict", "--data", rows, *words)
    assert told in str(raised.value)


def test_a_model_that_has_changed_or_gone_is_told(tmp_path: Path) -> None:
    run = finished(tmp_path, TASK, methods=["linear-probe"])
    rows = write_csv(tmp_path / "new.csv", [{"text": TEXTS[0]}])
    config = tmp_path / "model" / "config.json"
    weights = tmp_path / "model" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(ConfigError) as raised:
        call(run, "predict", "--data", rows)
    assert "what linear-probe was fitted with has changed since run" in str(raised.value)
    assert "model" in str(raised.value).splitlines()[1]
    shutil.move(config.parent, tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="model"):
        call(run, "predict", "--data", rows)


def test_a_run_that_does_not_say_where_its_file_lay_is_told(tmp_path: Path) -> None:
    run = finished(tmp_path, TASK, methods=["zero-shot"])
    rows = write_csv(tmp_path / "new.csv", [{"text": TEXTS[0]}])
    (run.record.folder / ORIGIN).unlink()
    with pytest.raises(ConfigError, match="does not say where its workflow file lay; run the workflow again"):
        call(run, "predict", "--data", rows)


def test_a_fit_that_was_removed_is_told(tmp_path: Path) -> None:
    run = finished(tmp_path, TASK, methods=["zero-shot"])
    rows = write_csv(tmp_path / "new.csv", [{"text": TEXTS[0]}])
    shutil.rmtree(run.choose().fit.folder)
    (record,) = runs(open_store(run.store.root))
    assert record.has_results
    with pytest.raises(ConfigError, match=r"failed or was removed from .*; run the workflow again"):
        call(run, "predict", "--data", rows, "--method", "zero-shot")


def test_a_folder_is_exported(run: Finished, tmp_path: Path) -> None:
    done = call(run, "export-model", tmp_path / "made", "--method", "linear-probe")
    assert "linear-probe (as asked) is in " in done.stderr
    assert (tmp_path / "made" / "classify.py").is_file()


def test_the_card_of_an_exported_folder_has_the_score_of_the_fit_that_is_in_it(tmp_path: Path) -> None:
    run = finished(tmp_path, TASK, methods=["semantic-prior", "zero-shot"], train_size=[1, 4])
    call(run, "export-model", tmp_path / "made", "--method", "semantic-prior")
    lines = run.record.read("results.json")
    (line,) = [one for one in lines if (one["method"], one["train_size"]) == ("semantic-prior", 4)]
    card = (tmp_path / "made" / "README.md").read_text()
    assert f"accuracy {line['mean']:.3f} ({line['low']:.3f} to {line['high']:.3f}), with its 95 % interval" in card
    assert "fitted on 4 training rows per class" in card


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "0.0.0.0"), "can be reached from other machines: give --token-file with a token"),
        (("--token-file", "/nowhere/token"), "cannot be read"),
        (("--host", "192.0.2.1", "--token-file", "TOKEN"), "cannot be listened on"),
    ],
)
def test_an_address_that_cannot_be_served_on_is_told(
    run: Finished, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "token").write_text("secret\n")
    with pytest.raises(ConfigError, match=told):
        call(run, "serve", *(str(tmp_path / "token") if word == "TOKEN" else word for word in words))
