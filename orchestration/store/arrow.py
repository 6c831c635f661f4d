"""Tables of arrays as Arrow IPC files: one record batch a file, uncompressed, read by memory map.

The IPC *file* format, not the stream format: a stream cut at a batch boundary reads as a shorter table without a word.
Arrow has no bfloat16: states of bfloat16 models are stored as float16 or float32.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

ROW_ID = "row_id"


def table_of(row_ids: Sequence[int] | np.ndarray, columns: Mapping[str, np.ndarray | Sequence]) -> pa.Table:
    """A table with a `row_id` column (int64) and the given columns; a [rows, d] array becomes FixedSizeList<dtype>[d].

    Raises ValueError where a column's length is not the number of row ids, or an array has more than two dimensions.
    """
    arrays = {ROW_ID: pa.array(np.asarray(row_ids, dtype=np.int64))}
    for name, column in columns.items():
        if len(column) != len(row_ids):
            raise ValueError(f"column {name!r} has {len(column)} rows, the table has {len(row_ids)}")
        arrays[name] = _array(name, column)
    return pa.table(arrays)


def _array(name: str, column: np.ndarray | Sequence) -> pa.Array:
    if not isinstance(column, np.ndarray) or column.ndim == 1:
        return pa.array(column)
    if column.ndim != 2:
        raise ValueError(f"column {name!r} has {column.ndim} dimensions; 1 or 2 can be stored")
    flat = np.ascontiguousarray(column).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), column.shape[1])


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one record batch."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))


def read_table(path: Path) -> pa.Table:
    """The table of a file, mapped, not copied. Raises pyarrow.ArrowInvalid where the file was cut."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def private_column(path: Path, name: str) -> np.ndarray:
    """One numeric column of a file, mapped copy-on-write: [rows], or [rows, d] for a fixed-size list.

    It can be written to: a page that is changed becomes a copy in memory, and the file stays as it is.
    """
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(mapped)
    column = column_array(pa.ipc.open_file(pa.BufferReader(whole)).read_all(), name)
    start = column.__array_interface__["data"][0] - whole.address
    return np.frombuffer(mapped, column.dtype, column.size, start).reshape(column.shape) if column.size else column


def column_array(table: pa.Table, name: str) -> np.ndarray:
    """One column as a read-only array over the mapped file: [rows], or [rows, d] for a fixed-size list. Nothing copied.

    Raises KeyError, naming the columns there are, where `name` is not one of them.
    """
    if name not in table.column_names:
        raise KeyError(f"no column {name!r}; the table has {', '.join(table.column_names)}")
    chunks = table.column(name).chunks
    kind = table.schema.field(name).type
    if not chunks:  # a table without rows has no batch
        shape = (0, kind.list_size) if pa.types.is_fixed_size_list(kind) else (0,)
        return np.empty(shape, dtype=(kind.value_type if len(shape) == 2 else kind).to_pandas_dtype())
    (chunk,) = chunks
    if pa.types.is_fixed_size_list(kind):  # flatten, not .values: the latter ignores a slice's offset
        return chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, kind.list_size)
    return chunk.to_numpy(zero_copy_only=True)
