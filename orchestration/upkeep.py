"""Making room: what no kept run reaches goes, and what is damaged goes, so that the next run makes it anew.

Nothing is removed while a driver makes it, nor what the run of a living driver reaches: a folder's lease is taken
before it is touched. An artifact loses its marker first, then its name, then its bytes: a half-removed one does not
exist.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from orchestration.errors import Damage
from orchestration.files import TEMPORARY
from orchestration.graph import folder_of
from orchestration.leases import LEASES, Lease, Leases, live_leases, remove_gone
from orchestration.runs import RUNS, RunRecord, runs
from orchestration.scratch import SCRATCH
from orchestration.store import MARKER, Artifact, Store

_SETTLED_SECONDS = 3600.0  # a temporary file younger than this may be some writer's
_OTHERS = (RUNS, SCRATCH, LEASES)  # folders of the store that hold no artifacts

Kind = Literal["artifact", "unfinished", "scratch", "temporary"]


@dataclass(frozen=True)
class Garbage:
    """One thing that nobody needs.

    Attributes:
        place: below the store.
        bytes: that its files take.
    """

    kind: Kind
    place: str
    bytes: int


def garbage(store: Store, keep: Collection[RunRecord] | None, older_than: float) -> list[Garbage]:
    """What no kept run reaches and nothing has touched for `older_than` seconds, and leftovers of killed processes.

    `keep` None is every recorded run. A run whose driver lives is kept in any case.
    """
    live = live_leases(store.root).keys()
    reached = _reached(runs(store) if keep is None else keep) | live
    for record in runs(store):
        if not live.isdisjoint(places := _reached([record])):
            reached |= places
    now = time.time()
    found = [
        Garbage("artifact" if (folder / MARKER).is_file() else "unfinished", place, bytes_of(folder))
        for folder in _step_folders(store.root)
        if (place := str(folder.relative_to(store.root))) not in reached and now - _touched(folder) > older_than
    ]
    for folder in sorted((store.root / SCRATCH).glob("*/*")):
        place = str(folder.relative_to(store.root / SCRATCH))
        done = (store.root / place / MARKER).is_file() and place not in live
        if done or (place not in reached and now - _touched(folder) > older_than):
            found.append(Garbage("scratch", str(folder.relative_to(store.root)), bytes_of(folder)))
    return found + [
        Garbage("temporary", str(path.relative_to(store.root)), bytes_of(path))
        for path in _temporary(store.root)
        if now - _touched(path) > _SETTLED_SECONDS and str(path.parent.relative_to(store.root)) not in live
    ]


def remove(store: Store, found: Iterable[Garbage]) -> Iterator[Garbage]:
    """Remove what `garbage` found and yield what is gone; what a driver has begun to make since then stays."""
    remove_gone(store.root)
    with closing(Leases(store.root)) as leases:
        for one in found:
            if one.kind == "temporary":
                _delete(store.root / one.place)
                yield one
            elif isinstance(lease := leases.take(one.place.removeprefix(f"{SCRATCH}/")), Lease):
                remove_folder(store, store.root / one.place)
                leases.give_back(lease)
                yield one


def remove_folder(store: Store, folder: Path) -> None:
    """Remove a step's folder, whole or half, so that at no moment a part of it counts."""
    (folder / MARKER).unlink(missing_ok=True)
    aside = store.root / f"{TEMPORARY}{uuid4().hex}"
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another was quicker
        return
    _delete(aside)


def unfinished(store: Store) -> list[Path]:
    """Folders of steps that were begun and not committed; they may hold committed shards."""
    return [folder for folder in _step_folders(store.root) if not (folder / MARKER).is_file()]


def damages(store: Store) -> dict[str, list[Damage]]:
    """Step folder -> what is wrong with it, of every committed artifact and every committed shard of others."""
    found = {artifact.folder: artifact.damages(every_byte=True) for artifact in store.artifacts()}
    found |= {folder: Artifact(folder).shard_damages() for folder in unfinished(store)}
    told = {str(folder.relative_to(store.root)): list(damages) for folder, damages in sorted(found.items())}
    return {place: damages for place, damages in told.items() if damages}


def remove_damaged(store: Store, places: Iterable[str]) -> Iterator[str]:
    """Remove step folders and yield those that are gone; what a driver makes at this moment stays."""
    with closing(Leases(store.root)) as leases:
        for place in places:
            if isinstance(lease := leases.take(place), Lease):
                remove_folder(store, store.root / place)
                leases.give_back(lease)
                yield place


def labels(store: Store) -> dict[str, str]:
    """Step folder -> what the last run that reaches it calls the step."""
    records = reversed(runs(store))
    return {_place(step): step["label"] for record in records for step in record.read("graph.json")["steps"]}


def bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(size for file in files if (size := _size(file)) is not None)


def _reached(records: Iterable[RunRecord]) -> set[str]:
    return {_place(step) for record in records for step in record.read("graph.json")["steps"]}


def _place(step: Mapping[str, Any]) -> str:
    return folder_of(step["step"], step["key"])


def _step_folders(root: Path) -> list[Path]:
    found = (path for path in root.glob("*/*") if path.is_dir() and not path.parent.name.startswith("."))
    return sorted(path for path in found if path.parent.name not in _OTHERS)


def _temporary(root: Path) -> list[Path]:
    depths = (f"{TEMPORARY}*", f"*/*/{TEMPORARY}*", f"{SCRATCH}/*/*/{TEMPORARY}*")
    found = {path for depth in depths for path in root.glob(depth)}
    return sorted(path for path in found if not path.parent.parent.name.startswith(TEMPORARY))


def _touched(path: Path) -> float:
    """When a file or folder was written last, by its file system's clock."""
    return max((stat for file in [path, *path.rglob("*")] if (stat := _time(file)) is not None), default=time.time())


def _time(path: Path) -> float | None:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return None


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size if not path.is_dir() else None
    except FileNotFoundError:
        return None


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=False)
    else:
        path.unlink(missing_ok=True)
