"""Columns of CSV, JSON and Parquet files, of folders and of a user's functions, read strictly.

What does not fit is an error that names the line.
One reader for every command: a value is text, a number, true or false, or None where it is missing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflows.errors import ConfigError, nearest
from workflows.inputs.folders import folder_names, read_folder
from workflows.inputs.own_rows import as_value, own_rows
from workflows.inputs.python_files import is_function

Value = str | int | float | bool | None
_LONGEST_FIELD = 2**31 - 1  # characters; the csv module stops at 131,072


@dataclass(frozen=True)
class Columns:
    """What was read of a file.

    Attributes:
        values: column -> its value in each row.
        notes: what is worth knowing of how it was read, and no mistake.
    """

    values: dict[str, list[Value]]
    notes: tuple[str, ...] = ()


def exists(path: Path) -> bool:
    """Whether there is something to read: a file, a folder, or a file with a function."""
    return path.exists() or (is_function(str(path)) and Path(str(path).rpartition(":")[0]).is_file())


def check_kind(path: Path) -> None:
    """Raises ConfigError for a file of a kind that cannot be read."""
    if _kind(path) not in _READERS:
        files = ", ".join(name for name in _READERS if name.startswith("."))
        raise ConfigError(f"{path}: cannot read {path.suffix!r} files; expected one of {files}")


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "function" if is_function(str(path)) else path.suffix


def column_names(path: Path) -> list[str]:
    """The columns of a file. Raises ConfigError for what cannot be read."""
    with _naming_encoding(path):
        return _NAMES[_kind(path)](path)


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """Columns of a file. Raises ConfigError, with the line, for what cannot be read or is no plain value."""
    with _naming_encoding(path):
        found = _READERS[_kind(path)](path, list(dict.fromkeys(names)))
    for name, values in found.values.items():
        if not values:
            raise ConfigError(f"{path}: contains no rows; {_ROWS[_kind(path)]}")
        _check_plain(path, name, values)
    return Columns({name: _of_one_kind(values) for name, values in found.values.items()}, found.notes)


def all_columns(path: Path) -> dict[str, list[Any]]:
    """Every column of a file as it stands there, whatever it holds. Raises ConfigError for what cannot be read."""
    with _naming_encoding(path):
        return _READERS[_kind(path)](path, _NAMES[_kind(path)](path)).values


@contextmanager
def _naming_encoding(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error


def _check_plain(path: Path, name: str, values: Sequence[Any]) -> None:
    for number, value in enumerate(values, 1):
        if value is not None and not isinstance(value, str | int | float):
            raise ConfigError(
                f"{path}: row {number}: column {name!r} contains {_KINDS.get(kind := type(value).__name__, kind)} "
                f"values, such as {value!r}; expected text, numbers, or true and false. Write the column as text."
            )


_KINDS = {"bytes": "binary", "dict": "nested", "list": "nested", "Decimal": "decimal", "datetime": "date and time"}


def _of_one_kind(values: list[Value]) -> list[Value]:
    """Numbers of a column that has fractions are all fractions, whatever the file's format."""
    if any(isinstance(value, float) for value in values):
        return [float(value) if type(value) is int else value for value in values]
    return values


def _check_have(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    problems = [
        f"{path}: no column {name!r}; {nearest(name, list(columns))} Correct `columns` or `label` in the task's "
        "`source`."
        for name in names
        if name not in columns
    ]
    problems += [
        f"{path}: {columns.count(name)} columns are named {name!r}; give each a different name"
        for name in names
        if columns.count(name) > 1
    ]
    if problems:
        raise ConfigError("\n".join(problems))


@dataclass(frozen=True)
class _Record:
    """A row of a CSV file, and the line it begins in."""

    line: int
    fields: list[str]


def _csv_names(path: Path) -> list[str]:
    return _csv_table(path)[0]


def _csv_table(path: Path) -> tuple[list[str], list[_Record]]:
    """The header and the rows."""
    records = list(_csv_records(path))
    if not records:
        raise ConfigError(f"{path}: contains no rows; expected a header line, and one row per line")
    return records[0].fields, records[1:]


def _read_csv(path: Path, names: Sequence[str]) -> Columns:
    header, rows = _csv_table(path)
    named = ["", *header] if _has_row_names(len(header), rows) else header
    _check_have(path, names, named)
    for row in rows:
        if len(row.fields) > len(named):
            raise ConfigError(
                f"{path}: line {row.line}: {len(row.fields)} fields, where the header has {len(header)}; "
                + _surplus_advice(row.fields)
            )
    places = {name: named.index(name) for name in names}
    for row in rows:
        if absent := [name for name, place in places.items() if place >= len(row.fields)]:
            raise ConfigError(
                f"{path}: line {row.line}: {len(row.fields)} fields, where the header has {len(header)}: none for "
                f"column {absent[0]!r}"
            )
    values: dict[str, list[Value]] = {name: [row.fields[place] for row in rows] for name, place in places.items()}
    return Columns(values, tuple(_csv_notes(path, rows, len(named) > len(header))))


def _surplus_advice(fields: Sequence[str]) -> str:
    if not fields[-1]:
        return "remove the comma at the end of the row, or name the last column in the header"
    return 'put text that has commas into double quotes: "like, this"'


def _csv_records(path: Path) -> Iterator[_Record]:
    """The records of a file, but for empty lines."""
    csv.field_size_limit(_LONGEST_FIELD)
    begins = 1
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise ConfigError(f"{path}: line {begins}: {_csv_error(str(error))}") from error
            if fields is None:
                return
            if fields and (len(fields) > 1 or fields[0].strip()):
                yield _Record(begins, fields)
            begins = reader.line_num + 1


def _csv_error(told: str) -> str:
    if "expected after" in told:
        return (
            "a quote ends before its field ends; double the quotes within quoted text, and put text that begins with a "
            'quote into quotes: """Fine"", he said"'
        )
    if "unexpected end" in told:
        return 'a quote opens here and is never closed; write a quote that begins a text as """'
    return f"cannot be read ({told})"


def _has_row_names(width: int, rows: Sequence[_Record]) -> bool:
    """Whether a file is as R's write.table writes it: each row begins with its number, which the header does not name.

    Any other surplus field is more likely a comma in a text.
    """
    numbers = {row.fields[0] for row in rows}
    return (
        bool(rows)
        and all(len(row.fields) == width + 1 and row.fields[0].isdecimal() for row in rows)
        and len(numbers) == len(rows)
        and any(row.fields[-1] for row in rows)
    )


def _csv_notes(path: Path, rows: Sequence[_Record], has_row_names: bool) -> Iterator[str]:
    if has_row_names:
        yield f"{path}: its first column has no name and is treated as row numbers"
    lines = [(row, sum(field.count("\n") or field.count("\r") for field in row.fields)) for row in rows]
    if longer := [row for row, more in lines if more]:
        yield (
            f"{path}: {len(rows):,} rows in {len(rows) + sum(more for _, more in lines):,} lines: {len(longer):,} have "
            f"a text of several lines, the first in line {longer[0].line}"
        )


def _json_names(path: Path) -> list[str]:
    return list(dict.fromkeys(name for _, row in _json_rows(path) for name in row))


def _read_json(path: Path, names: Sequence[str]) -> Columns:
    rows = [row for _, row in _json_rows(path)]
    if not rows:
        raise ConfigError(f"{path}: contains no rows; expected one JSON object per line")
    _check_have(path, names, list(dict.fromkeys(name for row in rows for name in row)))
    return Columns({name: [row.get(name) for row in rows] for name in names})


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and object, one object a line; or those of one array, whose lines are not known."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if content.lstrip().startswith(b"["):
        try:
            listed = _parsed(content)
        except ValueError as error:
            raise ConfigError(f"{path}: not a JSON array of objects: {error}") from error
        yield from ((1, _object(path, f"row {number}", row)) for number, row in enumerate(listed, 1))
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                row = _parsed(line)
            except ValueError as error:
                raise ConfigError(f"{path}: line {number}: {_json_error(error)}") from error
            yield number, _object(path, f"line {number}", row)


def _parsed(text: bytes) -> Any:
    """Strings stay text, whatever they look like. Raises ValueError, also for half a character."""
    value = json.loads(text.decode("utf-8"), object_pairs_hook=_once_each)
    if b"\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is listed twice; keep one")
    return found


def _json_error(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text ({error.reason}); save the file as UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "half of a character (a lone surrogate such as \\ud83d); write the whole character"
    return f"not a JSON object: {error}; expected one object per line"


def _object(path: Path, where: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError(
            f'{path}: {where}: found {row!r}; expected an object such as {{"text": "...", "label": "..."}}'
        )
    return row


def _parquet_names(path: Path) -> list[str]:
    with _parquet(path) as file:
        return file.schema_arrow.names


def _read_parquet(path: Path, names: Sequence[str]) -> Columns:
    with _parquet(path) as file:
        _check_have(path, names, file.schema_arrow.names)
        table = file.read(columns=list(names))
        return Columns({name: table.column(name).to_pylist() for name in names})


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _read_folder(path: Path, names: Sequence[str]) -> Columns:
    columns = read_folder(path)
    _check_have(path, names, list(columns))
    return Columns({name: [*columns[name]] for name in names})


def _function_names(path: Path) -> list[str]:
    return list(dict.fromkeys(name for row in own_rows(path) for name in row))


def _read_function(path: Path, names: Sequence[str]) -> Columns:
    rows = own_rows(path)
    if rows:
        _check_have(path, names, list(dict.fromkeys(name for row in rows for name in row)))
    return Columns({name: [as_value(row.get(name)) for row in rows] for name in names})


_READERS: Mapping[str, Callable[[Path, Sequence[str]], Columns]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    "folder": _read_folder,
    "function": _read_function,
}
_NAMES: Mapping[str, Callable[[Path], list[str]]] = {
    ".csv": _csv_names,
    ".jsonl": _json_names,
    ".json": _json_names,
    ".parquet": _parquet_names,
    "folder": folder_names,
    "function": _function_names,
}
_ROWS = dict.fromkeys(_READERS, "expected one row per line") | {
    "folder": "expected a file for each row",
    "function": "expected one row or more",
}
