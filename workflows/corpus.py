"""Text for pretraining: which files, and their documents in pieces of a size."""

from __future__ import annotations

import glob
import gzip
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from orchestration import files
from orchestration.facts import Facts
from workflows.data import row_hash
from workflows.errors import ConfigError
from workflows.hub import hub_file
from workflows.paths import located
from workflows.pretrain_config import Corpus

_SUFFIXES = (".txt", ".txt.gz")
PIECE_CHARACTERS = 4_096  # a longer document is cut, between lines, into pieces of about this size
_HASH_SPAN = 1 << 63  # of row_hash


def corpus_files(corpus: Corpus, base: Path) -> list[Path]:
    """The files of a corpus, in the order of their names. Raises ConfigError where a pattern matches none."""
    if corpus.hub is not None:
        return [_readable(hub_file(corpus.hub, corpus.revision, name)) for name in corpus.files]
    found: dict[Path, Path] = {}  # file -> the first name that leads to it: what is linked is no text twice
    for pattern in corpus.files:
        matches = sorted(located(base, name) for name in glob.glob(str(base / pattern), recursive=True))
        if not matches:
            raise ConfigError(f"corpus.files: no file matches {pattern!r} in {base}", ("corpus", "files"))
        for path in matches:
            found.setdefault(path.resolve(), _readable(path))
    return sorted(found.values())


def _readable(path: Path) -> Path:
    if not path.is_file() or not path.name.endswith(_SUFFIXES):
        raise ConfigError(f"{path}: cannot be read as text; expected {' or '.join(_SUFFIXES)}", ("corpus", "files"))
    return path


def corpus_digests(paths: Sequence[Path], facts: Facts) -> list[str]:
    """Digest of each file's content; a file is read only when its size or time is not the remembered one."""
    return [facts.get("text", [path], partial(files.checksum, path)) for path in paths]


def pieces(path: Path) -> Iterator[str]:
    """The documents of a file, long ones in pieces. Raises ConfigError for bytes that are not UTF-8 text."""
    lines: list[str] = []
    size = 0
    for line in _lines(path):
        if lines and (not line or size + len(line) > PIECE_CHARACTERS):
            yield "\n".join(lines)
            lines, size = [], 0
        if line:
            lines.append(line)
            size += len(line) + 1
    if lines:
        yield "\n".join(lines)


def _lines(path: Path) -> Iterator[str]:
    """Lines without what ends them; one of spaces alone is empty."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    raise ConfigError(
                        f"{path}: line {number}: not UTF-8 text ({error.reason}); save the file as UTF-8"
                    ) from error
        except (gzip.BadGzipFile, EOFError) as error:
            raise ConfigError(f"{path}: not a whole gzip file ({error}); fetch it again") from error


def is_held_out(piece: str, share: float) -> bool:
    """Whether a piece of text is kept for measuring: decided by its hash, whatever else the corpus holds."""
    return row_hash({"text": piece}) < share * _HASH_SPAN
