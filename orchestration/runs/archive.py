"""A run with all it reaches as one tar file, and back into a store.

The archive begins with an index: every file with its size and checksum. On import all files are unpacked beside the
store's, each byte is compared with the index and each artifact with its own manifest and key; only then are the folders
given their names, one rename each, the run's record last. So a cut or foreign archive leaves nothing behind.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import xxhash

from orchestration.errors import DamagedArtifact, StoreError
from orchestration.graph import FOLDER, folder_of, is_folder, key_of
from orchestration.runs.gc import remove_folder
from orchestration.runs.record import RUNS, TOLD, RunRecord, runs
from orchestration.store import files
from orchestration.store.artifacts import Artifact, Store
from orchestration.store.files import Progress, no_progress
from orchestration.store.leases import Lease, Leases
from orchestration.store.writer import FORMAT

_INDEX = "vocabsem-export.json"
_NAME = re.compile(rf"{FOLDER}/[A-Za-z0-9_][A-Za-z0-9_.-]*")
_BLOCK = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Moved:
    """What an export or import came to.

    Attributes:
        artifacts: how many were written.
        known: of an import, how many the store had already.
        missing: of an export, labels of the run's steps that are not there.
        bytes: of what was written.
    """

    run_id: str
    artifacts: int
    known: int
    missing: tuple[str, ...]
    bytes: int


def export_run(store: Store, record: RunRecord, file: Path, progress: Progress = no_progress) -> Moved:
    """Write a run and every artifact it reaches to a tar file, and check each byte.

    Args:
        store: that holds them.
        record: of the run.
        file: the archive; must not exist.
        progress: is called with the artifacts done and those in all.

    Raises StoreError where the file exists or cannot be written, DamagedArtifact where the store is not whole.
    """
    if file.exists():
        raise StoreError(f"{file}: exists; name another file, or remove it")
    steps = record.read("graph.json")["steps"]
    folders = {folder_of(step["step"], step["key"]): step["label"] for step in steps}
    there = [artifact for place in folders if (artifact := store.at(place)) is not None]
    for number, artifact in enumerate(there):
        progress(number, len(there))
        artifact.download()
        for damage in Artifact(artifact.folder).damages(every_byte=True):
            raise DamagedArtifact(damage)
    inside = [path for artifact in there for path in _files_of(artifact)]
    inside += [path for path in sorted(record.folder.iterdir()) if _is_recorded(path)]
    entries = {_name(store, path): files.entry_of(path) for path in inside}
    index = {"format": 1, "store": FORMAT, "run_id": record.run_id, "files": entries}
    temporary = file.with_name(f"{files.TEMPORARY}{uuid4().hex}")
    try:
        with tarfile.open(temporary, "w") as tar:
            text = files.json_bytes(index)
            head = tarfile.TarInfo(_INDEX)
            head.size = len(text)
            tar.addfile(head, io.BytesIO(text))
            for path in inside:
                tar.add(path, _name(store, path), recursive=False, filter=_plain)
        temporary.rename(file)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror}); make room, or name another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    found = {artifact.folder for artifact in there}
    missing = [label for place, label in folders.items() if store.root / place not in found]
    return Moved(record.run_id, len(there), 0, tuple(missing), file.stat().st_size)


def import_run(store: Store, file: Path, progress: Progress = no_progress) -> Moved:
    """Bring an exported run and its artifacts into a store; what the store has already stays as it is.

    Raises StoreError for a file that is no such archive, is cut, holds other bytes than its index says, or would not
    fit; then nothing of it is in the store.
    """
    aside = store.root / f"{files.TEMPORARY}{uuid4().hex}"
    try:
        with tarfile.open(file, "r:") as tar:
            index = _index(tar, file)
            places = sorted({name.rpartition("/")[0] for name in index["files"]})
            known = {place for place in places if _is_here(store, place)}
            _check_fit(store, file, index, known)
            _unpack(tar, file, index, known, aside, progress)
        artifacts = [place for place in places if place not in known and not place.startswith(f"{RUNS}/")]
        for place in artifacts:
            _check_whole(file, aside / place, place)
        _publish(store, aside, artifacts)
        run = f"{RUNS}/{index['run_id']}"
        if run in places and run not in known:
            (store.root / RUNS).mkdir(exist_ok=True)
            (aside / run).rename(store.root / run)
            RunRecord(index["run_id"], store.root / run, store.mirror).push()
    except FileNotFoundError as error:
        raise StoreError(f"{file}: no such file; name the archive of a run") from error
    except (tarfile.TarError, EOFError) as error:
        raise StoreError(
            f"{file}: no archive, or cut short ({error}); expected what an export of a run wrote"
        ) from error
    except OSError as error:
        raise StoreError(f"{file}: cannot be brought into {store.root} ({error.strerror or error})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    written = sum(entry["bytes"] for name, entry in index["files"].items() if name.rpartition("/")[0] not in known)
    return Moved(index["run_id"], len(artifacts), sum(not p.startswith(f"{RUNS}/") for p in known), (), written)


def _index(tar: tarfile.TarFile, file: Path) -> dict[str, Any]:
    first = tar.next()
    if first is None or first.name != _INDEX or not first.isreg():
        raise StoreError(f"{file}: not the archive of a run; expected {_INDEX} as the first file in it")
    try:
        index = json.loads(_opened(tar, first).read())
        formats, names = (index["format"], index["store"]), list(index["files"])
        entries = [(entry["bytes"], entry["xxh3"]) for entry in index["files"].values()]
        run_id = index["run_id"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file}: {_INDEX} cannot be read ({type(error).__name__}: {error}); export again") from error
    if formats != (1, FORMAT):
        raise StoreError(f"{file}: of format {formats}; this version of vocabsem reads (1, {FORMAT})")
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise StoreError(f"{file}: names {bad[0]!r}; expected <step>/<key>/<file>, nothing outside the store")
    if not is_folder(f"{RUNS}/{run_id}") or not all(isinstance(size, int) for size, _ in entries):
        raise StoreError(f"{file}: {_INDEX} cannot be read (run {run_id!r}); export again")
    return index


def _unpack(
    tar: tarfile.TarFile, file: Path, index: Mapping[str, Any], known: set[str], aside: Path, progress: Progress
) -> None:
    """Every file of the index, compared with it; those of known folders are compared and dropped."""
    seen: set[str] = set()
    while (member := tar.next()) is not None:
        if member.name not in index["files"] or not member.isreg() or member.name in seen:
            raise StoreError(f"{file}: holds {member.name!r}, which its index does not name so; nothing was imported")
        progress(len(seen), len(index["files"]))
        seen.add(member.name)
        place, digest, size = member.name.rpartition("/")[0], xxhash.xxh3_128(), 0
        target = None if place in known else aside / member.name
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
        with open(target or "/dev/null", "wb") as out:
            source = _opened(tar, member)
            while block := source.read(_BLOCK):
                out.write(block)
                digest.update(block)
                size += len(block)
        entry = index["files"][member.name]
        if (size, digest.hexdigest()) != (entry["bytes"], entry["xxh3"]):
            raise StoreError(f"{file}: {member.name} is not as it was exported; copy the archive again")
    if missing := sorted(index["files"].keys() - seen):
        raise StoreError(f"{file}: cut short: {missing[0]} and {len(missing) - 1} more are not in it; copy it again")


def _check_whole(file: Path, folder: Path, place: str) -> None:
    """Raises StoreError where an unpacked artifact is not what its own manifest and identity say."""
    artifact = Artifact(folder)
    try:
        for damage in artifact.damages(every_byte=True):
            raise DamagedArtifact(damage)
        payload = artifact.json("identity.json")
        key = key_of(payload)
        if (artifact.manifest["key"], folder_of(payload["step"], key)) != (key, place):
            raise StoreError(f"{file}: {place} holds another step's identity; nothing was imported")
    except (DamagedArtifact, OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file}: {place} is no whole artifact ({error}); nothing was imported") from error


def _publish(store: Store, aside: Path, places: list[str]) -> None:
    with closing(Leases(store.root)) as leases:
        for place in places:
            if not isinstance(leases.take(place), Lease):
                continue  # a run makes this very artifact now
            if store.at(place) is None:
                remove_folder(store, place)  # what a run had begun
                if store.mirror is not None:
                    store.mirror.upload(aside / place, place)
                (store.root / place).parent.mkdir(exist_ok=True)
                (aside / place).rename(store.root / place)


def _check_fit(store: Store, file: Path, index: Mapping[str, Any], known: set[str]) -> None:
    needed = sum(entry["bytes"] for name, entry in index["files"].items() if name.rpartition("/")[0] not in known)
    free = shutil.disk_usage(store.root).free
    if needed > free:
        raise StoreError(f"{file}: needs {needed:,} bytes; {store.root} has {free:,} free. Make room first")


def _is_here(store: Store, place: str) -> bool:
    if not place.startswith(f"{RUNS}/"):
        return store.at(place) is not None
    return any(record.folder == store.root / place for record in runs(store))


def _files_of(artifact: Artifact) -> list[Path]:
    return [artifact.folder / name for name in [*artifact.manifest["files"], "manifest.json", files.MARKER]]


def _is_recorded(path: Path) -> bool:
    """Whether a file of a run's record travels: not what this store's MLflow was told."""
    return path.is_file() and path.name != TOLD and not path.name.startswith(files.TEMPORARY)


def _name(store: Store, path: Path) -> str:
    return path.relative_to(store.root).as_posix()


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose file it was and when: the same run gives the same archive."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = tar.extractfile(member)
    assert source is not None, "a regular file can be opened"
    return source
