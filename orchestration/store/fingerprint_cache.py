"""What follows from files and is expensive to compute: facts (a model's digest), and folders (a converted model)."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestration.graph import key_of
from orchestration.store import files
from orchestration.store.writer import unwritable

_SETTLED_SECONDS = 2.0  # a file younger than this may change again within its clock's tick: not remembered


class FingerprintCache:
    """A JSON file of remembered facts, by the files' paths, sizes and times, and folders beside it.

    Losing it, or an entry to a concurrent writer, costs time and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folders: set[Path] = set()
        try:
            self._known: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            self._known = {}

    def get(self, kind: str, sources: Sequence[Path], compute: Callable[[], Any]) -> Any:
        """What `compute` returns (JSON), computed again only when one of the files changed its size or time."""
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
        name = key_of({"kind": kind, "files": [list(stat) for stat in stats]})
        if name not in self._known:
            found = compute()
            if not all(self._is_ours(path) or _is_settled(path) for path in sources):
                return found
            self._known[name] = found
            with suppress(OSError):  # a full disk, or a store that is only read: then another process computes it anew
                files.replace_json(self._path, self._known)
        return self._known[name]

    def _is_ours(self, path: Path) -> bool:
        """Whether it lies in a folder that `folder` gave, which never changes."""
        return path.parent in self._folders

    def folder(self, name: str, fill: Callable[[Path], object]) -> Path:
        """A folder beside the facts, filled where it is not there yet.

        It appears whole or not at all; of several that fill it the first one's stays. Raises StoreError where it cannot
        be written.
        """
        root = self._path.parent
        folder = root / name
        aside = root / f"{files.TEMPORARY}{uuid4().hex}"  # what a killed process leaves, gc removes
        self._folders.add(folder)
        if folder.is_dir():
            return folder
        try:
            aside.mkdir(parents=True)
            fill(aside)
            for path in (aside, *aside.iterdir()):
                _flush(path)
            folder.parent.mkdir(exist_ok=True)
            aside.rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another was first
                raise unwritable(folder, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return folder


def _is_settled(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _SETTLED_SECONDS


def _flush(path: Path) -> None:
    """Have a file, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
