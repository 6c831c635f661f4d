"""Arrays to Arrow files and back, bit for bit."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.store.arrow import column_array, private_column, read_table, table_of, write_table


@settings(max_examples=25)
@given(rows=st.integers(0, 20), width=st.integers(1, 9), dtype=st.sampled_from([np.float16, np.float32, np.float64]))
def test_what_is_read_is_what_was_written(tmp_path_factory, rows, width, dtype):
    path = tmp_path_factory.mktemp("shard") / "part.arrow"
    states = np.random.default_rng(rows).normal(size=(rows, width)).astype(dtype)
    write_table(path, table_of(np.arange(rows) + 7, {"head": states, "text": [f"row {i}" for i in range(rows)]}))
    table = read_table(path)
    read = column_array(table, "head")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, states)
    assert column_array(table, "row_id").tolist() == list(range(7, 7 + rows))
    assert table.column("text").to_pylist() == [f"row {i}" for i in range(rows)]


def test_a_mapped_column_cannot_be_written_to(tmp_path):
    """A write through the map would end the process with a segmentation fault."""
    write_table(tmp_path / "a.arrow", table_of([0], {"x": np.ones((1, 2))}))
    with pytest.raises(ValueError, match="read-only"):
        column_array(read_table(tmp_path / "a.arrow"), "x")[0, 0] = 2.0


def test_a_slice_reads_its_own_rows(tmp_path):
    write_table(tmp_path / "a.arrow", table_of(range(4), {"x": np.arange(8.0).reshape(4, 2)}))
    part = read_table(tmp_path / "a.arrow").slice(2, 1)
    assert column_array(part, "x").tolist() == [[4.0, 5.0]]


def test_a_cut_file_is_an_error_at_any_length(tmp_path):
    path = tmp_path / "a.arrow"
    write_table(path, table_of(range(100), {"x": np.arange(200.0).reshape(100, 2)}))
    whole = path.read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(pa.ArrowInvalid):
            read_table(path)


def test_mistakes_name_the_column():
    with pytest.raises(ValueError, match="'x' has 3 rows, the table has 2"):
        table_of([0, 1], {"x": np.ones(3)})
    with pytest.raises(ValueError, match="'x' has 3 dimensions"):
        table_of([0], {"x": np.ones((1, 2, 3))})
    with pytest.raises(KeyError, match="no column 'y'; the table has row_id, x"):
        column_array(table_of([0], {"x": np.ones(1)}), "y")


def test_a_private_column_can_be_written_to_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "part.arrow"
    states = np.arange(12, dtype=np.float16).reshape(4, 3)
    write_table(path, table_of(range(4), {"head": states, "tokens": np.arange(4, dtype=np.int32)}))
    before = path.read_bytes()
    for name, expected in (("head", states), ("tokens", np.arange(4, dtype=np.int32))):
        column = private_column(path, name)
        np.testing.assert_array_equal(column, expected)
        assert column.dtype == expected.dtype
        column[:] = 7
    assert path.read_bytes() == before
    write_table(path, table_of([], {"head": states[:0]}))
    assert private_column(path, "head").shape == (0, 3)
