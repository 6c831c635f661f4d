"""What a step may keep between attempts, and how far it says it is: <store>/scratch/<step>/<key>/.

Unlike an artifact it may change, and nothing else reads it; it is removed when the artifact is committed. A step says
how far it is in files, one for each of its workers or shards, so that the driver needs no way to reach a worker but the
disk they share.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestration.store.files import TEMPORARY

SCRATCH = "scratch"  # the folder of the store that holds them
WHOLE = "step"  # the part that a step's own process is
SIGNS = "signs"  # of life, in a step's folder
_PROGRESS = "progress"
_PAUSE_SECONDS = 1.0  # between writes of one part: batches may be short
_written: dict[Path, float] = {}  # by this process: when last


@dataclass(frozen=True)
class StepProgress:
    """How far work is.

    Attributes:
        done, of: how much of how much, in `unit`s ("rows"); `of` 0 is not known.
        note: what else is worth knowing ("best 0.512").
    """

    done: float
    of: float
    unit: str
    note: str = ""

    def amount(self) -> str:
        """As "512 of 4,096 rows"; "" where nothing is counted."""
        if not self.unit:
            return ""
        done = f"{int(self.done):,}" + (f" of {int(self.of):,}" if self.of else "")
        return f"{done} {self.unit}"


def scratch_folder(store: Path, step_folder: str) -> Path:
    """The folder of a step's attempts; it need not exist."""
    return store / SCRATCH / step_folder


def tell(folder: Path, told: StepProgress, part: str = WHOLE, at_once: bool = False) -> None:
    """Report progress of a step, or of a part of it. Cheap when called often, and never fails a step.

    Args:
        folder: the step's scratch folder.
        told: how far it is.
        part: name of the part, where several processes report.
        at_once: whether to write it even if the last report was a moment ago.
    """
    path = folder / _PROGRESS / f"{part}.json"
    if _too_soon(path) and not at_once:
        return
    first = path not in _written
    _written[path] = time.monotonic()
    with suppress(OSError):  # a full disk is for the step's own files to tell
        if first:  # and never again: a worker that wakes after the commit must leave nothing behind
            path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{TEMPORARY}{os.getpid()}-{part}")
        staged.write_text(json.dumps(asdict(told)), encoding="utf-8")
        os.replace(staged, path)


def annotate(folder: Path, note: str, part: str = WHOLE) -> None:
    """Replace the note of what a step, or a part of it, said last."""
    path = folder / _PROGRESS / f"{part}.json"
    if note and _too_soon(path):  # before it is read: a transfer has thousands of pieces
        return
    last = _read(path)
    tell(folder, replace(last[1] if last is not None else StepProgress(0, 0, ""), note=note), part, at_once=not note)


def withdraw(folder: Path, part: str) -> None:
    """Forget what a part said: it ended, and what it did is counted elsewhere."""
    path = folder / _PROGRESS / f"{part}.json"
    _written.pop(path, None)
    path.unlink(missing_ok=True)


def begin_anew(folder: Path) -> None:
    """Forget what an earlier attempt said."""
    for path in [path for path in _written if path.parent == folder / _PROGRESS]:
        del _written[path]
    shutil.rmtree(folder / _PROGRESS, ignore_errors=True)


def keeps(folder: Path) -> bool:
    """Whether a step keeps something to go on from, beside signs of life and what it said."""
    places = (one for one in folder.glob("*") if one.name not in (SIGNS, _PROGRESS))
    return any(path.is_file() for place in places for path in (place, *place.rglob("*")))


def told(folder: Path) -> StepProgress | None:
    """What all parts of a step said last, added up; None where nothing was said."""
    parts: list[tuple[float, str, StepProgress]] = []
    for path in (folder / _PROGRESS).glob("[!.]*.json"):
        if (last := _read(path)) is not None:
            parts.append((last[0], path.stem, last[1]))
    if not parts:
        return None
    parts.sort(key=lambda part: part[:2])
    found, of = [part for *_, part in parts], max(part.of for *_, part in parts)
    done = sum(part.done for part in found)
    own = [part.note for _, name, part in parts if name == WHOLE]
    others = [part.note for _, name, part in parts if name != WHOLE]
    notes = [note for note in (*own, *others[-1:]) if note]
    unit = next((part.unit for part in found if part.of == of), "")
    return StepProgress(min(done, of) if of else done, of, unit, "; ".join(notes))


def _too_soon(path: Path) -> bool:
    """Whether a part was written a moment ago."""
    return time.monotonic() - _written.get(path, -math.inf) < _PAUSE_SECONDS


def _read(path: Path) -> tuple[float, StepProgress] | None:
    """When a part said something last, and what; None where there is nothing, or it was withdrawn meanwhile."""
    with suppress(OSError, ValueError, TypeError):
        return path.stat().st_mtime, StepProgress(**json.loads(path.read_text(encoding="utf-8")))
    return None
