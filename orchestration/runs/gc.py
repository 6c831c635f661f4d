"""Making room: what no kept run reaches goes, and what is damaged goes, so that the next run recomputes it.

Nothing is removed while a driver makes it, nor what the run of a living driver reaches: a folder's lease is taken
before it is touched. An artifact loses its marker first, then its name, then its bytes: a half-removed one does not
exist. Of a store in a bucket, drivers on other machines are not known: what they begin is left for an hour.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestration.errors import Damage
from orchestration.graph import folder_of
from orchestration.runs.record import RUNS, RunRecord, runs
from orchestration.store import files
from orchestration.store.artifacts import Artifact, Store
from orchestration.store.files import MARKER, TEMPORARY, Progress, no_progress
from orchestration.store.leases import LEASES, Lease, Leases, live_leases, remove_gone
from orchestration.store.scratch import SCRATCH

_SETTLED_SECONDS = 3600.0  # a temporary file younger than this may be some writer's
_ASIDE = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{32}}")  # as every temporary file of ours begins
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


@dataclass(frozen=True)
class _Folder:
    """A step's folder, in a folder's store or a bucket's. `touched`: when it was written last, by the store's clock."""

    place: str
    committed: bool
    bytes: int
    touched: float


def garbage(store: Store, keep: Collection[RunRecord] | None, older_than: float) -> list[Garbage]:
    """What no kept run reaches and nothing has touched for `older_than` seconds, and leftovers of killed processes.

    `keep` None is every recorded run. A run whose driver lives is kept in any case.
    """
    live = live_leases(store.root).keys()
    settled = older_than if store.mirror is None else max(older_than, _SETTLED_SECONDS)
    reached = _reached(runs(store) if keep is None else keep) | live
    for record in runs(store):
        if not live.isdisjoint(places := _reached([record])):
            reached |= places
    now = time.time()
    found = [
        Garbage("artifact" if folder.committed else "unfinished", folder.place, folder.bytes)
        for folder in _step_folders(store)
        if folder.place not in reached and now - folder.touched > (older_than if folder.committed else settled)
    ]
    for folder in files.folders(store.root / SCRATCH):
        place = str(folder.relative_to(store.root / SCRATCH))
        done = store.at(place) is not None and place not in live
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
                remove_folder(store, one.place)
                leases.give_back(lease)
                yield one


def remove_folder(store: Store, place: str) -> None:
    """Remove a step's folder, or a scratch folder, whole or half, so that at no moment a part of it counts."""
    if store.mirror is not None and not place.startswith(f"{SCRATCH}/"):
        store.mirror.remove(place)  # its copy here too
    else:
        files.remove_folder(store.root, store.root / place)


def damages(store: Store, progress: Progress = no_progress) -> dict[str, list[Damage]]:
    """Step folder -> what is wrong with it, of every committed artifact and every committed shard of others."""
    found, folders = {}, _step_folders(store)
    for number, folder in enumerate(folders):
        progress(number, len(folders))
        artifact = Artifact(store.root / folder.place, store.mirror)
        found[folder.place] = list(artifact.damages(every_byte=True) if folder.committed else artifact.shard_damages())
    return {place: damages for place, damages in found.items() if damages}


def remove_damaged(store: Store, places: Iterable[str]) -> Iterator[str]:
    """Remove step folders and yield those that are gone; what a driver makes at this moment stays."""
    with closing(Leases(store.root)) as leases:
        for place in places:
            if isinstance(lease := leases.take(place), Lease):
                remove_folder(store, place)
                leases.give_back(lease)
                yield place


def labels(store: Store) -> dict[str, str]:
    """Step folder -> what the last run that reaches it calls the step."""
    records = reversed(runs(store))
    return {_place(step): step["label"] for record in records for step in record.read("graph.json")["steps"]}


def bytes_of(path: Path) -> int:
    """Of a file, or of all files in a folder."""
    inside = path.rglob("*") if path.is_dir() else [path]
    return sum(size for file in inside if (size := _size(file)) is not None)


def _reached(records: Iterable[RunRecord]) -> set[str]:
    return {_place(step) for record in records for step in record.read("graph.json")["steps"]}


def _place(step: Mapping[str, Any]) -> str:
    return folder_of(step["step"], step["key"])


def _step_folders(store: Store) -> list[_Folder]:
    """Of every step that was begun."""
    if store.mirror is not None:
        return [
            _Folder(place, MARKER in names, sum(o.bytes for o in found), max(o.modified for o in found))
            for place, names in sorted(store.mirror.names().items())
            if place.partition("/")[0] not in _OTHERS and (found := list(names.values()))
        ]
    return [
        _Folder(str(path.relative_to(store.root)), (path / MARKER).is_file(), bytes_of(path), _touched(path))
        for path in files.folders(store.root)
        if path.parent.name not in _OTHERS
    ]


def _temporary(root: Path) -> list[Path]:
    beside = [path for path in root.iterdir() if _ASIDE.match(path.name)]
    ours = [*files.folders(root), *files.folders(root / SCRATCH)]
    return sorted([*beside, *(path for folder in ours for path in folder.glob(f"{TEMPORARY}*"))])


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
