"""Rows that a function of a user's Python file gives, one after another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from workflows.errors import ConfigError
from workflows.inputs.python_files import find_function, naming_line

ARRAY = "array "  # what stands in a table for an array begins so; its digest follows


def own_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of `file.py:function`, each a mapping of columns to values.

    Raises ConfigError, with the line, where the function raises or returns anything else.
    """
    function = find_function(str(path), path.parent)
    given = function.call()
    if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
        raise ConfigError(
            f"{function}: returned {type(given).__name__}; expected an iterable of rows, such as "
            '[{"x": 1.0, "label": "warm"}]'
        )
    rows = []
    with naming_line(function.file, f"{function.name}()"):
        for number, row in enumerate(given, 1):
            if not isinstance(row, Mapping):
                raise ConfigError(f"{function}: row {number} is a {type(row).__name__}; expected a mapping of columns")
            rows.append(dict(row))
    return rows


def as_value(found: Any) -> Any:
    """What stands in a table for a value: a number as Python's own, an array or tensor as the digest of its content."""
    if not hasattr(found, "__array__"):
        return found
    import numpy as np

    array = np.ascontiguousarray(found)
    if array.ndim == 0:
        return array.item()
    told = f"{array.dtype.str} {array.shape} ".encode()
    return f"{ARRAY}{xxhash.xxh3_128_hexdigest(told + array.tobytes())}"
