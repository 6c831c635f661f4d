"""Files of rows are read strictly: what does not fit is an error that names the line, never another value."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workflows.errors import ConfigError
from workflows.inputs.row_files import read_columns


def csv(folder: Path, text: str) -> Path:
    path = folder / "a.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "text,label\nfine,pos\na good meal, I think,pos\n",
            r"line 3: 3 fields, where the header has 2; put text .* quotes",
        ),
        ("text,label\na, b, so,pos\nfine,pos\n", r"line 2: 4 fields, where the header has 2"),
        (
            "title,text,label\na,b,c,\nd,e,f,\n",
            r"line 2: 4 fields, where the header has 3; remove the comma at the end",
        ),
        ("title,text,label\na,b,c,\nd,e,f\n", r"line 2: 4 fields, where the header has 3"),
        ("text,label\nfine\n", r"line 2: 1 fields, where the header has 2: none for column 'label'"),
        ('text,label\n"Fine, he said,pos\nwell,neg\n', r"line 2: a quote opens here and is never closed"),
        ('text,label\n"Fine" he said,pos\n', r"line 2: a quote ends before its field ends"),
        ("text,text,label\na,b,c\n", r"2 columns are named 'text'; give each a different name"),
    ],
    ids=["comma", "commas", "commas at ends", "one comma at an end", "short", "open", "stray", "twice"],
)
def test_a_row_that_does_not_fit_its_header_is_an_error_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"a\.csv: {told}"):
        read_columns(csv(tmp_path, text), ["text", "label"])


def test_the_shorter_header_of_r_is_taken_for_row_numbers_and_told(tmp_path: Path) -> None:
    found = read_columns(csv(tmp_path, "text,label\n1,fine,pos\n2,dull,neg\n"), ["text", "label"])
    assert found.values == {"text": ["fine", "dull"], "label": ["pos", "neg"]}
    assert found.notes == (f"{tmp_path / 'a.csv'}: its first column has no name and is treated as row numbers",)


def test_rows_are_counted_against_lines(tmp_path: Path) -> None:
    found = read_columns(csv(tmp_path, 'text,label\nfine,pos\n"two\nlines",neg\n'), ["text"])
    assert found.values == {"text": ["fine", "two\nlines"]}
    assert found.notes[0].endswith("2 rows in 3 lines: 1 have a text of several lines, the first in line 3")


@pytest.mark.parametrize(
    "value",
    [datetime.date(2024, 1, 1), datetime.time(12), decimal.Decimal("1.5"), b"bytes"],
    ids=lambda value: type(value).__name__,
)
def test_values_of_parquet_that_are_not_plain_are_refused(tmp_path: Path, value: Any) -> None:
    pq.write_table(pa.table({"text": ["fine"], "label": [value]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: row 1: column 'label' contains .* values, such as"):
        read_columns(tmp_path / "a.parquet", ["text", "label"])


def test_numbers_of_one_column_are_of_one_kind(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"label": 1.0}\n{"label": 2}\n')
    assert read_columns(tmp_path / "a.jsonl", ["label"]).values == {"label": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{nope", "not a JSON object"),
        ("[]x", "not a JSON"),
        ('{"text": "a", "text": "b"}', "'text' is listed twice"),
        ('{"text": "\\ud83d"}', "half of a character"),
        ("7", "expected an object"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=rf"a\.jsonl: line 2: .*{told}"):
        read_columns(tmp_path / "a.jsonl", ["text"])
