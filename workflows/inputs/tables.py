"""Rows of tasks: which file and which of its rows a split has, their texts, and how they are known by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestration.store.artifacts import Artifact
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.errors import ConfigError
from workflows.inputs.catalog import CATALOG_TASKS, Task
from workflows.inputs.hub import hub_file
from workflows.inputs.paths import located
from workflows.inputs.row_files import Value, check_kind, column_names, read_columns

Split = Literal["train", "test"]
_ROWS_OF_YOURS = "give --data-dir DIR with DIR/<task>/train.jsonl and test.jsonl"


@dataclass(frozen=True)
class Part:
    """One side of a file that is split into training and test rows.

    Attributes:
        share: of the rows, those that are test rows.
        seed: another one draws other rows.
        split: which side.
    """

    share: float
    seed: int
    split: Split


@dataclass(frozen=True)
class SplitFile:
    """One split of a task: its file, which columns hold what, and which part of it where train and test share it."""

    path: Path
    columns: dict[str, str]
    label: str
    values: dict[str, str] | None
    part: Part | None = None

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return sorted({*self.columns.values(), self.label})


def split_file(task: Task, split: Split) -> SplitFile:
    """Raises ConfigError where the file is missing or of a kind that cannot be read."""
    source = task.config.source
    if task.new_rows is not None and split == "test":
        return _unlabelled(task.new_rows, source.columns)
    if task.local_data is not None:
        path = task.local_data / f"{split}.jsonl"
        found = SplitFile(path, {field: field for field in source.columns}, "label", None)
    else:
        name = source.file(split)
        if source.hub is not None:
            path = hub_file(source.hub, source.revision, name, _ROWS_OF_YOURS)
        else:
            path = located(task.base, name)
        part = Part(source.split, source.split_seed, split) if source.split is not None else None
        found = SplitFile(path, source.columns, source.label, source.values, part)
    if not found.path.is_file():
        raise ConfigError(f"task {task.config.name!r}: no file {found.path} for its {split} rows{_offer(task, split)}")
    check_kind(found.path)
    return found


def _unlabelled(path: Path, columns: Mapping[str, str]) -> SplitFile:
    """Rows whose columns are called as in the task's own files, or as the fields of its prompt.

    They have no label: a column that is read anyway stands in its place, and nothing asks what is in it.
    """
    if not path.is_file():
        raise ConfigError(f"no file {path}")
    check_kind(path)
    there = column_names(path)
    if missing := [field for field, column in columns.items() if not {field, column} & set(there)]:
        told = " or ".join(dict.fromkeys(repr(name) for name in (missing[0], columns[missing[0]])))
        raise ConfigError(f"{path}: no column {told}; it has {', '.join(map(repr, there)) or 'none'}")
    named = {field: column if column in there else field for field, column in columns.items()}
    return SplitFile(path, named, next(iter(named.values())), None)


def _offer(task: Task, split: Split) -> str:
    """What to do about a missing file, where that is not plain."""
    if task.local_data is not None:
        return ""
    if task.base == CATALOG_TASKS:
        return f"; {_ROWS_OF_YOURS}"
    if split == "test":
        return ". With a single file of rows, use `split: 0.2` instead of `test` to hold out a fifth of it"
    return ""


def column_digests(file: SplitFile, facts: FingerprintCache) -> dict[str, str]:
    """Column -> digest of its values in row order: rows are known by content, not by path, format or time.

    Reads the file only when its size or time is not the remembered one.
    """
    return _known(file, facts)["digests"]


def row_count(file: SplitFile, facts: FingerprintCache) -> int:
    """Rows of a file, those of the other split included where it holds both."""
    return _known(file, facts)["rows"]


def _known(file: SplitFile, facts: FingerprintCache) -> dict[str, Any]:
    def compute() -> dict[str, Any]:
        columns = read_columns(file.path, file.names).values
        return {"digests": _digests(columns), "rows": max(map(len, columns.values()))}

    # "strict": what a less strict reader made of a file is not remembered.
    return facts.get(f"columns and rows {file.names} strict", [file.path], compute)


def unchanged_columns(file: SplitFile, digests: Mapping[str, str], also: Sequence[str] = ()) -> dict[str, list[Value]]:
    """The columns of these digests, and others. Raises ConfigError where a key was made from other values."""
    values = read_columns(file.path, [*digests, *also]).values
    if _digests({name: values[name] for name in digests}) != dict(digests):
        raise changed(file)
    return values


def changed(file: SplitFile) -> ConfigError:
    """The file is no longer what a key was made from."""
    return ConfigError(f"{file.path}: changed during the run; run again")


def _digests(columns: Mapping[str, Sequence[Value]]) -> dict[str, str]:
    return {name: _digest(values) for name, values in columns.items()}


def _digest(values: Sequence[Value]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def text_rows(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[dict[str, str]]:
    """The prompt fields of every row. Raises ConfigError for one that is empty or not text."""
    problems = text_problems(file, columns)
    if problems:
        raise ConfigError(problems[0])
    return fields_of_rows(file, columns)


def text_problems(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[str]:
    """What is wrong with the prompt fields: texts that are empty or not text."""
    return [
        f"{file.path}: row {number}: column {file.columns[field]!r} is {value!r}; expected non-empty text"
        for number, row in enumerate(fields_of_rows(file, columns), 1)
        for field, value in row.items()
        if not isinstance(value, str) or not value.strip()
    ]


def fields_of_rows(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[dict[str, Any]]:
    """The prompt fields of every row, unchecked."""
    fields = sorted(file.columns)
    return [
        dict(zip(fields, values, strict=True))
        for values in zip(*(columns[file.columns[field]] for field in fields), strict=True)
    ]


def kept_rows(rows: Sequence[dict[str, str]], limit: int | None) -> list[int]:
    """The places of the rows a limit keeps: those of smallest hash, in the file's order."""
    if limit is None or limit >= len(rows):
        return list(range(len(rows)))
    return sorted(sorted(range(len(rows)), key=lambda place: (row_hash(rows[place]), place))[:limit])


def row_hash(row: dict[str, str]) -> int:
    """63 bits of a row's content: chooses validation rows and parts of a data set whatever the order of rows."""
    digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fields_of(texts: Artifact) -> list[dict[str, str]]:
    """The prompt fields of every row of texts."""
    from orchestration.store.arrow import read_table

    return [row for path in texts.shards() for row in field_columns(read_table(path)).to_pylist()]


def field_columns(table: Any) -> Any:
    """A table of texts without what is no prompt field."""
    from orchestration.store.arrow import ROW_ID

    return table.drop_columns([ROW_ID, "row_hash"])


def row_names(rows: Iterable[int], file: str = "") -> list[str]:
    """What errors call rows of these ids: counted from 1, as in their file."""
    return [f"{file}row {row + 1}" for row in rows]
