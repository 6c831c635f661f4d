"""Facts about files that are expensive to compute (a model's digest), kept by the files' paths, sizes and times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestration.graph import key_of
from orchestration.store import files

_SETTLED_SECONDS = 2.0  # a file younger than this may change again within its clock's tick: not remembered


class FingerprintCache:
    """A JSON file of remembered facts. Losing it, or an entry to a concurrent writer, costs time and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
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
            if not all(time.time() - stat[2] / 1e9 > _SETTLED_SECONDS for stat in stats):
                return found
            self._known[name] = found
            with suppress(OSError):  # a full disk, or a store that is only read: then another process computes it anew
                files.replace_json(self._path, self._known)
        return self._known[name]
