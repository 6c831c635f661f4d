"""Rows are read alike from every format, checked, and known by their content."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.store.fingerprint_cache import FingerprintCache
from tests.workflows.films import TASK
from workflows.config.task import TaskConfig
from workflows.errors import ConfigError
from workflows.inputs.catalog import Task, find_task
from workflows.inputs.labels import label_numbers, label_problems, read_labels
from workflows.inputs.row_files import read_columns
from workflows.inputs.tables import SplitFile, column_digests, kept_rows, row_hash, split_file, text_problems, text_rows

ROWS = [{"text": "a plain line", "label": "good"}, {"text": 'café, "quoted"\nand broken', "label": "bad"}]
FORMATS = ["csv", "jsonl", "parquet"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file of the kind its name ends in."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def split(path: Path, values: dict[str, str] | None = None, **columns: str) -> SplitFile:
    return SplitFile(path, columns or {"text": "text"}, "label", values)


def texts(file: SplitFile) -> list[dict[str, str]]:
    return text_rows(file, read_columns(file.path, file.names).values)


def numbers(file: SplitFile, names: Sequence[str]) -> list[int]:
    return label_numbers(file, read_columns(file.path, file.names).values, names)


def digests(file: SplitFile) -> dict[str, str]:
    return column_digests(file, FingerprintCache(file.path.parent / "facts.json"))


def task(base: Path, local: Path | None = None, **source: Any) -> Task:
    fields = {"name": "mine", "source": source, "template": "{text} is", "words": {"x": "good", "y": "bad"}}
    return Task(TaskConfig.model_validate(fields), base, local)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_rows_labels_and_digests(tmp_path: Path, kind: str) -> None:
    file, first = split(write(tmp_path / f"a.{kind}", ROWS)), split(write(tmp_path / "b.jsonl", ROWS))
    assert texts(file) == [{"text": row["text"]} for row in ROWS]
    assert numbers(file, ["good", "bad"]) == [0, 1]
    assert digests(file) == digests(first)


@pytest.mark.parametrize("labels", [("true", "false"), ("NA", "OK"), ("01", "02")], ids=str)
def test_text_that_looks_like_something_else_stays_text_in_every_format(
    tmp_path: Path, labels: tuple[str, str]
) -> None:
    rows = [{"text": f"row {label}", "label": label} for label in labels]
    files = [split(write(tmp_path / f"a.{kind}", rows)) for kind in FORMATS]
    assert [numbers(file, labels) for file in files] == [[0, 1]] * 3
    assert len({digests(file)["label"] for file in files}) == 1


@pytest.mark.parametrize("text", ["null", "None", "42"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_text_that_is_one_odd_word_is_kept(tmp_path: Path, kind: str, text: str) -> None:
    file = split(write(tmp_path / f"a.{kind}", [{"text": text, "label": "good"}]))
    assert texts(file) == [{"text": text}]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("text", ["2024-01-01", "2024-03-01 10:00:00", "12:30:00"])
def test_text_that_looks_like_a_time_stays_text(tmp_path: Path, kind: str, text: str) -> None:
    """Readers of JSON lines take a column of dates for times."""
    file = split(write(tmp_path / f"a.{kind}", [{"text": text, "label": text}]))
    assert texts(file) == [{"text": text}]
    assert numbers(file, [text]) == [0]


def test_changed_labels_change_only_the_label_columns_digest(tmp_path: Path) -> None:
    before = digests(split(write(tmp_path / "a.jsonl", ROWS)))
    after = digests(split(write(tmp_path / "b.jsonl", [{**row, "label": "good"} for row in ROWS])))
    assert before["text"] == after["text"]
    assert before["label"] != after["label"]


def test_the_order_of_rows_is_part_of_the_digest_and_other_columns_are_not(tmp_path: Path) -> None:
    plain = digests(split(write(tmp_path / "a.jsonl", ROWS)))
    assert digests(split(write(tmp_path / "b.jsonl", ROWS[::-1])))["text"] != plain["text"]
    assert digests(split(write(tmp_path / "c.jsonl", [{"id": 7, **row} for row in ROWS]))) == plain


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_column_is_refused_with_the_nearest_one(tmp_path: Path, kind: str) -> None:
    file = split(write(tmp_path / f"a.{kind}", ROWS), text="texd")
    with pytest.raises(ConfigError, match=rf"a\.{kind}: no column 'texd'; did you mean 'text'\?.*`source`"):
        texts(file)


@pytest.mark.parametrize("empty", ["", "  \n", None])
def test_a_row_without_text_is_named_by_its_number(tmp_path: Path, empty: str | None) -> None:
    file = split(write(tmp_path / "a.jsonl", [*ROWS, {"text": empty, "label": "bad"}]))
    with pytest.raises(ConfigError, match=r"a\.jsonl: row 3: column 'text' is .*expected non-empty text"):
        texts(file)


def test_a_label_without_a_word_is_named_by_its_row_with_the_nearest_label(tmp_path: Path) -> None:
    file = split(write(tmp_path / "a.jsonl", [*ROWS, {"text": "x", "label": "goood"}]))
    with pytest.raises(ConfigError, match=r"a\.jsonl: row 3: label 'goood' .*did you mean 'good'\?"):
        numbers(file, ["good", "bad"])


def test_all_that_is_wrong_with_the_rows_can_be_told_at_once(tmp_path: Path) -> None:
    rows = [{"text": "", "label": "goood"}, *ROWS, {"text": "x", "label": None}, {"text": None, "label": "baad"}]
    file = split(write(tmp_path / "a.jsonl", rows))
    columns = read_columns(file.path, file.names).values
    assert [problem.split(": ")[1] for problem in text_problems(file, columns)] == ["row 1", "row 5"]
    found = read_labels(file, columns, ["good", "bad"])
    assert found.numbers == [None, 0, 1, None, None]
    problems = label_problems([(file, found)], ["good", "bad"])
    assert [problem.split(": ")[1] for problem in problems] == ["row 1", "row 4", "row 5"]


def test_a_limit_keeps_the_same_rows_whatever_their_order() -> None:
    rows = [{"text": str(number)} for number in range(50)]
    kept = [rows[place] for place in kept_rows(rows, 7)]
    backwards = [rows[::-1][place] for place in kept_rows(rows[::-1], 7)]
    assert len(kept) == 7
    assert kept == backwards[::-1]
    assert kept_rows(rows, None) == kept_rows(rows, 99) == list(range(50))


@pytest.mark.parametrize("kind", FORMATS)
def test_integer_labels_are_named_by_values(tmp_path: Path, kind: str) -> None:
    rows = [{"text": "x", "label": number} for number in (1, 0, 1)]
    file = split(write(tmp_path / f"a.{kind}", rows), values={"0": "bad", "1": "good"})
    assert numbers(file, ["good", "bad"]) == [0, 1, 0]
    with pytest.raises(ConfigError, match="row 1 and 1 more: value '1' is not in the task's `values`; known: 0"):
        numbers(split(file.path, values={"0": "bad"}), ["good", "bad"])


def test_a_pair_task_reads_two_fields_from_their_columns(tmp_path: Path) -> None:
    rows = [{"p": "it rains", "h": "it is wet", "label": "good"}]
    file = split(write(tmp_path / "a.jsonl", rows), text_a="p", text_b="h")
    assert texts(file) == [{"text_a": "it rains", "text_b": "it is wet"}]
    assert set(digests(file)) == {"p", "h", "label"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(
        {"csv": "text,label\ncafé,good\n", "jsonl": '{"text": "café", "label": "good"}\n'}[kind].encode("latin-1")
    )
    with pytest.raises(ConfigError, match=rf"a\.{kind}: .*not UTF-8 text .*save the file as UTF-8"):
        digests(split(path))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_without_rows_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.touch()
    with pytest.raises(ConfigError, match=rf"a\.{kind}"):
        digests(split(path))


def test_a_csv_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nhello,good\n", encoding="utf-8-sig")
    assert texts(split(path)) == [{"text": "hello"}]


def test_brackets_in_a_path_are_no_pattern(tmp_path: Path) -> None:
    (tmp_path / "run [1]").mkdir()
    assert len(texts(split(write(tmp_path / "run [1]" / "a.csv", ROWS)))) == 2


def test_the_hash_of_a_row_never_changes() -> None:
    assert row_hash({"text": "hello"}) == 9165361570186011637
    assert row_hash({"text_a": "a", "text_b": "é"}) == 7553244737726804915


def test_the_hash_of_a_row_knows_its_content_not_the_order_of_its_fields() -> None:
    assert row_hash({"text_b": "é", "text_a": "a"}) == row_hash({"text_a": "a", "text_b": "é"})
    assert row_hash({"text_a": "é", "text_b": "a"}) != row_hash({"text_a": "a", "text_b": "é"})
    assert all(0 <= row_hash({"text": str(number)}) < 2**63 for number in range(200))


def test_a_tasks_files_start_from_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    found = split_file(task(tmp_path, train="a.jsonl", test="b.jsonl", label="kind", columns={"text": "body"}), "train")
    assert found == SplitFile(path.resolve(), {"text": "body"}, "kind", None)


def test_local_data_replaces_the_source_and_its_column_names(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", ROWS)
    source = {"hub": "o/n", "train": "x", "test": "y", "columns": {"text": "body"}, "label": "n", "values": {"0": "x"}}
    assert split_file(task(tmp_path, tmp_path, **source), "test") == split(path)


def test_a_missing_file_is_named_with_task_and_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task 'mine': no file .*b\.csv for its test rows"):
        split_file(task(tmp_path, train="a.csv", test="b.csv"), "test")


def test_a_catalog_task_without_an_address_says_how_to_give_its_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task 'webss': no file .* for its test rows; give --data-dir DIR with DIR/"):
        split_file(find_task("webss", tmp_path, None), "test")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").touch()
    with pytest.raises(ConfigError, match=r"a\.tsv: cannot read '\.tsv' files; expected one of \.csv"):
        split_file(task(tmp_path, train="a.tsv", test="a.tsv"), "train")


def test_a_link_is_read_as_what_its_name_says(tmp_path: Path) -> None:
    """In the caches of Hugging Face every file, a task's YAML too, is a link to one that is named by its hash."""
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    for name in ("train", "test"):
        write(blobs / f"{name}.csv", ROWS).rename(blobs / name)
        (folder / f"{name}.csv").symlink_to(blobs / name)
    (blobs / "task").write_text(json.dumps({**TASK, "source": {"train": "train.csv", "test": "test.csv"}}))
    (folder / "task.yaml").symlink_to(blobs / "task")
    found = split_file(find_task("task.yaml", folder, None), "train")
    assert found.path == folder / "train.csv"
    assert texts(found) == [{"text": row["text"]} for row in ROWS]
