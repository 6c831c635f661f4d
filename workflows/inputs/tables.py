"""Rows of tasks: which file and which of its rows a split has, their texts, and how they are known by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestration.store.artifacts import Artifact
from orchestration.store.files import checksum
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.errors import ConfigError
from workflows.inputs.catalog import CATALOG_TASKS, Task
from workflows.inputs.folders import FILE
from workflows.inputs.hub import hub_file
from workflows.inputs.own_rows import ARRAY
from workflows.inputs.paths import located
from workflows.inputs.python_files import is_function
from workflows.inputs.row_files import Columns, Value, check_kind, column_names, exists, read_columns

Split = Literal["train", "test"]
FILE_DIGEST = "file "  # what stands for a file begins so
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
    """One split of a task: its file, which columns hold what, and which part of it where train and test share it.

    Attributes:
        path: a table, a folder of files, or `file.py:function`.
        columns: field -> column.
        label: the column of the label.
        values: value in that column -> label.
        part: where train and test share the file.
        files: columns whose values are paths, relative to `folder`; such a file is known by its content.
    """

    path: Path
    columns: dict[str, str]
    label: str
    values: dict[str, str] | None
    part: Part | None = None
    files: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """What the paths in its columns start from."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return sorted({*self.columns.values(), self.label})


def split_file(task: Task, split: Split) -> SplitFile:
    """Raises ConfigError where the file is missing or of a kind that cannot be read."""
    source = task.config.source
    if task.new_rows is not None and split == "test":
        return _unlabelled(task.new_rows, source.columns, source.files)
    if task.local_data is not None:
        path = task.local_data / f"{split}.jsonl"
        found = SplitFile(path, {field: field for field in source.columns}, "label", None, files=source.files)
    else:
        name = source.file(split)
        if source.hub is not None:
            path = hub_file(source.hub, source.revision, name, _ROWS_OF_YOURS)
        else:
            path = located(task.base, name)
        part = Part(source.split, source.split_seed, split) if source.split is not None else None
        files = (FILE,) if path.is_dir() else tuple(source.columns[field] for field in source.files)
        found = SplitFile(path, source.columns, source.label, source.values, part, files)
    if not exists(found.path):
        raise ConfigError(f"task {task.config.name!r}: no file {found.path} for its {split} rows{_offer(task, split)}")
    check_kind(found.path)
    return found


def _unlabelled(path: Path, columns: Mapping[str, str], files: Sequence[str]) -> SplitFile:
    """Rows whose columns are called as in the task's own files, or as the fields of its prompt.

    They have no label: a column that is read anyway stands in its place, and nothing asks what is in it.
    """
    if not exists(path):
        raise ConfigError(f"no file {path}")
    check_kind(path)
    there = column_names(path)
    if missing := [field for field, column in columns.items() if not {field, column} & set(there)]:
        told = " or ".join(dict.fromkeys(repr(name) for name in (missing[0], columns[missing[0]])))
        raise ConfigError(f"{path}: no column {told}; it has {', '.join(map(repr, there)) or 'none'}")
    named = {field: column if column in there else field for field, column in columns.items()}
    paths = (FILE,) if path.is_dir() else tuple(named[field] for field in files)
    return SplitFile(path, named, next(iter(named.values())), None, files=paths)


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
        columns = read_split(file, file.names).values
        return {"digests": _digests(columns), "rows": max(map(len, columns.values()))}

    # "strict": what a less strict reader made of a file is not remembered.
    return remembered(f"columns and rows {file.names} strict", file, compute, facts)


def remembered(kind: str, file: SplitFile, compute: Callable[[], Any], facts: FingerprintCache) -> Any:
    """What follows from a file and those that it names, computed again where one has changed.

    Nobody knows what the rows of a user's function depend on: it is asked each time.
    """
    if is_function(str(file.path)):
        return compute()
    return facts.get(f"{kind} {file.files}" if file.files else kind, files_of(file), compute)


def files_of(file: SplitFile) -> list[Path]:
    """The files that its rows are made of. Raises ConfigError where one that a column names is not there."""
    if is_function(str(file.path)):
        return [Path(str(file.path).rpartition(":")[0])]
    table = [] if file.path.is_dir() else [file.path]
    if not file.files:
        return table
    columns = read_columns(file.path, file.files).values
    return table + [path for name in file.files for path in _paths(file, name, columns[name])]


def _paths(file: SplitFile, column: str, values: Sequence[Value]) -> list[Path]:
    paths = [file.folder / str(value) for value in values]
    missing = [row for row, path in enumerate(paths) if not path.is_file()]
    if missing:
        more = f", nor of {len(missing) - 1:,} more rows" if len(missing) > 1 else ""
        raise ConfigError(f"{file.path}: row {missing[0] + 1}: column {column!r}: no file {paths[missing[0]]}{more}")
    return paths


def read_split(file: SplitFile, names: Sequence[str]) -> Columns:
    """Columns of a file; in place of the path of a file stands the digest of its bytes."""
    found = read_columns(file.path, names)
    digests: dict[str, list[Value]] = {
        name: [FILE_DIGEST + checksum(path) for path in _paths(file, name, found.values[name])]
        for name in file.files
        if name in found.values
    }
    return Columns({**found.values, **digests}, found.notes)


def unchanged_columns(file: SplitFile, digests: Mapping[str, str], also: Sequence[str] = ()) -> dict[str, list[Value]]:
    """The columns of these digests, and others. Raises ConfigError where a key was made from other values."""
    values = read_split(file, [*digests, *also]).values
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
    stands_for = [field for field, column in file.columns.items() if _is_content(columns[column])]
    if stands_for:
        return [f"{file.path}: field {stands_for[0]!r} is of files or arrays; a language model reads text"]
    return [
        f"{file.path}: row {number}: column {file.columns[field]!r} is {value!r}; expected non-empty text"
        for number, row in enumerate(fields_of_rows(file, columns), 1)
        for field, value in row.items()
        if not isinstance(value, str) or not value.strip()
    ]


def _is_content(values: Sequence[Value]) -> bool:
    """Whether what stands in a column is a digest of something else."""
    return isinstance(values[0], str) and values[0].startswith((ARRAY, FILE_DIGEST))


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
