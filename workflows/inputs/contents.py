"""What stands behind the values of a table: files that a column names, decoded, and arrays of a user's function.

In a table, and so in every key, a file stands as the digest of its bytes and an array as that of its content.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from workflows.errors import ConfigError
from workflows.inputs.own_rows import ARRAY, as_value, own_rows
from workflows.inputs.python_files import is_function
from workflows.inputs.row_files import Value, read_columns
from workflows.inputs.tables import FILE_DIGEST, SplitFile, changed

if TYPE_CHECKING:
    import numpy as np

Content = Callable[[int, str, Value], Any]  # (row, field, what stands for it) -> what it is


class Unreadable(Exception):
    """A file that is no image, sound or array that can be decoded; the message names it."""


@dataclass(frozen=True)
class Sound:
    """A decoded WAV file.

    Attributes:
        rate: samples a second.
        samples: between -1 and 1, [n], of several channels [n, channels], float32.
    """

    rate: int
    samples: np.ndarray


def contents_of(file: SplitFile) -> Content:
    """Gives the content of a field of a row; plain values are their own.

    It raises Unreadable for a file that cannot be decoded, and ConfigError for one that is no longer what a key was
    made from.
    """
    columns = [column for column in file.columns.values() if column in file.files]
    paths = read_columns(file.path, columns).values if columns else {}
    made = own_rows(file.path) if is_function(str(file.path)) else []

    def content(row: int, field: str, value: Value) -> Any:
        column = file.columns[field]
        if column in paths:
            path = file.folder / str(paths[column][row])
            try:
                data = path.read_bytes()
            except OSError as error:
                raise Unreadable(f"{path}: {error.strerror}") from error
            if f"{FILE_DIGEST}{xxhash.xxh3_128_hexdigest(data)}" != value:
                raise changed(file)
            return decoded(data, str(path))
        if made and isinstance(value, str) and value.startswith(ARRAY):
            if as_value(found := made[row][column]) != value:
                raise ConfigError(f"{file.path}: row {row + 1}: another array of {column!r} than before; seed it")
            return found
        return value

    return content


def decoded(data: bytes, name: str) -> Any:
    """A WAV file as a `Sound`, an .npy file as its array, anything else as an image: uint8 [h, w] or [h, w, channels].

    Raises Unreadable with the `name` of what cannot be decoded.
    """
    import numpy as np

    try:
        if data[:4] == b"RIFF":
            return _sound(data)
        if data[:6] == b"\x93NUMPY":
            return np.load(io.BytesIO(data), allow_pickle=False)
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            plain = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
            return np.array(image.convert(plain))
    except Exception as error:  # decoders raise whatever they meet
        raise Unreadable(f"{name}: {' '.join(str(error).split()) or type(error).__name__}") from error


def _sound(data: bytes) -> Sound:
    import numpy as np
    from scipy.io import wavfile

    rate, samples = wavfile.read(io.BytesIO(data))
    if not len(samples):
        raise ValueError("no samples")
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return Sound(int(rate), samples.astype(np.float32))
