"""Rows of tasks: read with `datasets`, checked, and known by their content."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from orchestration.facts import Facts
from workflows.catalog import Task
from workflows.errors import ConfigError, nearest
from workflows.hub import hub_file
from workflows.paths import located

Split = Literal["train", "test"]
_READERS = {".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class SplitFile:
    """One split of a task: its file, and which columns hold what."""

    path: Path
    columns: dict[str, str]
    label: str
    values: dict[str, str] | None


def split_file(task: Task, split: Split) -> SplitFile:
    """Raises ConfigError where the file is missing or of a kind that cannot be read."""
    source = task.config.source
    if task.local_data is not None:
        path = task.local_data / f"{split}.jsonl"
        found = SplitFile(path, {field: field for field in source.columns}, "label", None)
    elif source.hub is not None:
        elsewhere = "give --data-dir DIR with DIR/<task>/train.jsonl and test.jsonl"
        path = hub_file(source.hub, source.revision, getattr(source, split), elsewhere)
        found = SplitFile(path, source.columns, source.label, source.values)
    else:
        found = SplitFile(located(task.base, getattr(source, split)), source.columns, source.label, source.values)
    if not found.path.is_file():
        raise ConfigError(f"task {task.config.name!r}: no file {found.path} for its {split} rows")
    if found.path.suffix not in _READERS:
        raise ConfigError(
            f"{found.path}: cannot read {found.path.suffix!r} files; expected one of {', '.join(_READERS)}"
        )
    return found


def column_digests(file: SplitFile, facts: Facts) -> dict[str, str]:
    """Column -> digest of its values in row order: rows are known by content, not by path, format or time.

    Reads the file only when its size or time is not the remembered one.
    """
    wanted = sorted({*file.columns.values(), file.label})

    return facts.get(f"columns {wanted}", [file.path], lambda: _digests(file.path, wanted))


def must_be_unchanged(file: SplitFile, digests: Mapping[str, str]) -> None:
    """Raises ConfigError where a column's values are no longer those that a key was made from."""
    if _digests(file.path, sorted(digests)) != dict(digests):
        raise ConfigError(f"{file.path}: changed while the run went on; run again")


def _digests(path: Path, columns: Sequence[str]) -> dict[str, str]:
    return {
        name: hashlib.sha256(json.dumps(values, default=_refuse).encode()).hexdigest()
        for name, values in read_columns(path, columns).items()
    }


def read_columns(path: Path, names: Sequence[str]) -> dict[str, list]:
    """Columns of a file, as `datasets` reads them. Raises ConfigError for a missing column or unreadable file."""
    import datasets

    datasets.disable_progress_bars()
    try:
        options = _as_text(path, names) if path.suffix == ".csv" else {}
        with TemporaryDirectory() as cache:  # its own cache would grow in the home folder with copies of what is here
            place = {"data_files": glob.escape(str(path)), "split": "train", "cache_dir": cache}
            loaded = datasets.load_dataset(_READERS[path.suffix], **place, keep_in_memory=True, **options)
            _must_have(path, names, loaded.column_names)
            return {name: list(loaded[name]) for name in names}
    except StopIteration:
        raise ConfigError(f"{path}: holds no rows; expected one row a line") from None
    except (datasets.exceptions.DatasetGenerationError, UnicodeDecodeError, ValueError) as error:
        cause = error.__cause__ or error
        raise ConfigError(
            f"{path}: cannot be read as {_READERS[path.suffix]}: {cause}. Expected UTF-8 text, one row a line."
        ) from error


def _as_text(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Options that keep every CSV value as it is written: no guess makes NA a missing value or 01 a one."""
    import datasets

    with open(path, encoding="utf-8-sig", newline="") as file:
        _must_have(path, names, next(csv.reader(file)))
    features = datasets.Features({name: datasets.Value("string") for name in names})
    return {"features": features, "keep_default_na": False}


def _must_have(path: Path, names: Sequence[str], columns: list[str]) -> None:
    missing = [
        f"{path}: no column {name!r}; {nearest(name, columns)} Correct `columns` or `label` in the task's `source`."
        for name in names
        if name not in columns
    ]
    if missing:
        raise ConfigError("\n".join(missing))


def text_rows(file: SplitFile, fields: Sequence[str]) -> list[dict[str, str]]:
    """The prompt fields of every row. Raises ConfigError for one that is empty or not text."""
    rows, problems = checked_texts(file, fields)
    _refuse_first(problems)
    return rows


def checked_texts(file: SplitFile, fields: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """The prompt fields of every row, and what is wrong with them: texts that are empty or not text."""
    columns = read_columns(file.path, [file.columns[field] for field in fields])
    rows = [
        dict(zip(fields, values, strict=True))
        for values in zip(*(columns[file.columns[field]] for field in fields), strict=True)
    ]
    problems = [
        f"{file.path}: row {number + 1}: column {file.columns[field]!r} is {value!r}; expected text that is not empty"
        for number, row in enumerate(rows)
        for field, value in row.items()
        if not isinstance(value, str) or not value.strip()
    ]
    return rows, problems


def label_numbers(file: SplitFile, names: Sequence[str]) -> list[int]:
    """The class number of every row. Raises ConfigError for a value that is no label of the task."""
    numbers, problems = checked_labels(file, names)
    _refuse_first(problems)
    return [number for number in numbers if number is not None]


def checked_labels(file: SplitFile, names: Sequence[str]) -> tuple[list[int | None], list[str]]:
    """The class number of every row, None where its value is no label of the task; and what is wrong with those."""
    known = {name: number for number, name in enumerate(names)}
    found: list[int | None] = []
    wrong: dict[str | None, list[int]] = {}  # value -> its rows: a wrong label rarely stands alone
    for row, value in enumerate(read_columns(file.path, [file.label])[file.label]):
        text = str(value)
        name = file.values.get(text, text) if file.values is not None else text
        number = None if value is None else known.get(name)
        found.append(number)
        if number is None:
            wrong.setdefault(None if value is None else text, []).append(row + 1)
    return found, [_wrong_label(file, value, rows, names) for value, rows in wrong.items()]


def _wrong_label(file: SplitFile, value: str | None, rows: Sequence[int], names: Sequence[str]) -> str:
    where = f"{file.path}: row {rows[0]}" + (f" and {len(rows) - 1:,} more" if len(rows) > 1 else "")
    if value is None:
        return f"{where}: column {file.label!r} is empty; expected a label"
    name = file.values.get(value, value) if file.values is not None else value
    return f"{where}: label {value!r} has no word in the task's `words`; {nearest(name, list(names))}"


def kept_rows(rows: Sequence[dict[str, str]], limit: int | None) -> list[int]:
    """The places of the rows a limit keeps: those of smallest hash, in the file's order."""
    if limit is None or limit >= len(rows):
        return list(range(len(rows)))
    return sorted(sorted(range(len(rows)), key=lambda place: (row_hash(rows[place]), place))[:limit])


def _refuse_first(problems: Sequence[str]) -> None:
    for problem in problems:
        raise ConfigError(problem)


def row_hash(row: dict[str, str]) -> int:
    """63 bits of a row's content: chooses validation rows and parts of a data set whatever the order of rows."""
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _refuse(value: object) -> object:
    raise ConfigError(f"a column holds {type(value).__name__} values; expected text or numbers")
