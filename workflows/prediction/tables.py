"""Files of rows with their predictions: every column that was there, and new ones beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.store.files import replace_bytes
from orchestration.store.writer import unwritable
from workflows.errors import ConfigError
from workflows.inputs.row_files import all_columns

Columns = Mapping[str, Sequence[Any]]


def check_output(path: Path, overwrite: bool) -> None:
    """Raises ConfigError, before anything is computed, for a file that cannot or must not be written."""
    if path.suffix not in _WRITERS:
        raise ConfigError(f"{path}: cannot write {path.suffix!r} files; expected one of {', '.join(_WRITERS)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"{path}: {'is a folder' if path.is_dir() else f'no folder {path.parent}'}; name another file"
        )
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: exists; give --overwrite, or another file")


def check_new(path: Path, names: Sequence[str], there: Sequence[str]) -> None:
    """Raises ConfigError where a file of rows has a column that predictions would be written to."""
    if taken := [name for name in names if name in there]:
        raise ConfigError(f"{path}: has a column {taken[0]!r}, which predictions are written to; rename it")


def with_predictions(rows: Path, predicted: Columns, suffix: str) -> bytes:
    """The content of a file of the kind that a suffix names: the columns of `rows`, and those that were predicted."""
    if suffix == rows.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(rows)
        for name, values in predicted.items():
            table = table.append_column(name, pa.array(values))
        return _parquet_bytes(table)
    return _WRITERS[suffix]({**all_columns(rows), **predicted})


def write(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises StoreError where it cannot be written."""
    try:
        replace_bytes(path, content)
    except OSError as error:
        raise unwritable(path, error) from error


def _csv(columns: Columns) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def _jsonl(columns: Columns) -> bytes:
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def _parquet(columns: Columns) -> bytes:
    import pyarrow as pa

    return _parquet_bytes(pa.table({name: list(values) for name, values in columns.items()}))


def _parquet_bytes(table: Any) -> bytes:
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


_WRITERS: Mapping[str, Callable[[Columns], bytes]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
