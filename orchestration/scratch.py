"""What a step may keep between attempts, and how far it says it is: <store>/scratch/<step>/<key>/.

Unlike an artifact it may change, and nothing else reads it; it is removed when the artifact is committed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestration.files import replace_json

SCRATCH = "scratch"  # the folder of the store that holds them
_PROGRESS = "progress.json"


def scratch_folder(store: Path, step_folder: str) -> Path:
    """The folder of a step's attempts; it need not exist."""
    return store / SCRATCH / step_folder


def tell(folder: Path, done: int, of: int, note: str) -> None:
    """Say how far a step is, for whoever watches the run."""
    replace_json(folder / _PROGRESS, {"done": done, "of": of, "note": note})


def told(folder: Path) -> dict[str, Any] | None:
    """What was said last, or None."""
    try:
        return json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
