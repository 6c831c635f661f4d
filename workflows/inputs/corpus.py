"""Text for pretraining: which files, and their documents in pieces of a size."""

from __future__ import annotations

import glob
import gzip
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from orchestration.store import files
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.config.pretrain import Corpus
from workflows.errors import ConfigError
from workflows.inputs.hub import hub_file
from workflows.inputs.paths import located
from workflows.inputs.tables import kept_rows, row_hash

_SUFFIXES = (".txt", ".txt.gz")
PIECE_CHARACTERS = 4_096  # a longer document is cut, between lines, into pieces of about this size
MEASURED_PIECES = 1_000  # of the held-out ones: beyond, intervals hardly narrow, and a large corpus would take hours
_HASH_SPAN = 1 << 63  # of row_hash


def corpus_files(corpus: Corpus, base: Path) -> list[Path]:
    """The files of a corpus, in the order of their names. Raises ConfigError where a pattern matches none.

    A file that has the very name is meant by it, whatever it would match as a pattern.
    """
    if corpus.hub is not None:
        elsewhere = "download the files, and name them without `hub`"
        return [_readable(hub_file(corpus.hub, corpus.revision, name, elsewhere)) for name in corpus.files]
    found: dict[Path, Path] = {}  # file -> the first name that leads to it: what is linked is no text twice
    for pattern in corpus.files:
        named = [pattern] if (base / pattern).is_file() else glob.glob(pattern, root_dir=base, recursive=True)
        matches = sorted(located(base, name) for name in named)
        if not matches:
            raise ConfigError(f"corpus.files: no file matches {pattern!r} in {base}", ("corpus", "files"))
        for path in matches:
            found.setdefault(path.resolve(), _readable(path))
    return sorted(found.values())


def _readable(path: Path) -> Path:
    if not path.is_file() or not path.name.endswith(_SUFFIXES):
        raise ConfigError(f"{path}: cannot be read as text; expected {' or '.join(_SUFFIXES)}", ("corpus", "files"))
    return path


def corpus_digests(paths: Sequence[Path], facts: FingerprintCache) -> list[str]:
    """Digest of each file's content; a file is read only when its size or time is not the remembered one."""
    return [facts.get("text", [path], partial(files.checksum, path)) for path in paths]


def pieces(path: Path) -> Iterator[str]:
    """The documents of a file, long ones in pieces; a line of spaces alone is empty, and ends a document.

    Raises ConfigError for bytes that are not UTF-8 text.
    """
    lines: list[str] = []
    size = 0
    for line in _lines(path):
        empty = not line.strip()
        if lines and (empty or size + len(line) > PIECE_CHARACTERS):
            yield "\n".join(lines)
            lines, size = [], 0
        if not empty:
            lines.append(line)
            size += len(line) + 1
    if lines:
        yield "\n".join(lines)


def _lines(path: Path) -> Iterator[str]:
    """Lines without what ends them: spaces at their beginning may mean something. A byte order mark is left out."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8" if number > 1 else "utf-8-sig").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise ConfigError(
                        f"{path}: line {number}: not UTF-8 text ({error.reason}); save the file as UTF-8"
                    ) from error
                if "\0" in text:
                    raise ConfigError(
                        f"{path}: line {number}: found a NUL character, as in UTF-16; save the file as UTF-8"
                    )
                yield text
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ConfigError(f"{path}: not a complete gzip file ({error}); download it again") from error


def measured_pieces(held_out: Sequence[str]) -> list[str]:
    """Those that bits are measured on: what a smaller share would have held out."""
    rows = [{"text": piece} for piece in held_out]
    return [held_out[place] for place in kept_rows(rows, MEASURED_PIECES)]


def is_held_out(piece: str, share: float) -> bool:
    """Whether a piece of text is kept for measuring: decided by its hash, whatever else the corpus holds."""
    return row_hash({"text": piece}) < share * _HASH_SPAN
