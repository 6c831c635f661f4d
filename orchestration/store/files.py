"""Files that appear whole or not at all, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import xxhash

from orchestration.errors import Damage, StoreError
from orchestration.graph import is_folder

MARKER = "COMMITTED"  # without this file an artifact's folder does not count
TEMPORARY = ".tmp-"
Progress = Callable[[int, int], None]  # called with how many are done, and of how many
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # of exFAT, of some network and FUSE file systems


def no_progress(done: int, of: int) -> None:
    """For a caller who does not ask how far it is."""


def checksum(path: Path) -> str:
    """xxh3-128 of a file's bytes, in hexadecimal, read through one small buffer."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """A file's size and checksum, as manifests and indexes list them."""
    return {"bytes": path.stat().st_size, "xxh3": checksum(path)}


def damage_of(path: Path, entry: Mapping[str, Any], every_byte: bool, name: str = "") -> Damage | None:
    """How a file differs from its entry; None where it does not.

    Args:
        path: of the file.
        entry: its size and checksum, as `entry_of` made it.
        every_byte: whether to compare the checksum as well as the size.
        name: what messages call the file; empty: its path.
    """
    name = name or str(path)
    if not path.is_file():
        return Damage(name, "no file", f"{entry['bytes']} bytes")
    if (size := path.stat().st_size) != entry["bytes"]:
        return Damage(name, f"{size} bytes", f"{entry['bytes']} bytes")
    if every_byte and (found := checksum(path)) != entry["xxh3"]:
        return Damage(name, f"checksum {found}", f"checksum {entry['xxh3']}")
    return None


def folders(root: Path, step: str = "*") -> list[Path]:
    """The folders of steps and runs below a store's, or of one step's name. What is not named by a key is not ours."""
    found = sorted(root.glob(f"{step}/*"))
    return [path for path in found if is_folder(path.relative_to(root).as_posix()) and path.is_dir()]


def readable(count: int) -> str:
    """Bytes for a person: 1.4 kB, 15.2 MB, 3.0 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size / 10:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1000:.1f} kB"


def stage(folder: Path, name: str, fill: Callable[[Path], object]) -> Path:
    """Write a temporary file beside its future place and flush it to the disk; removed again if `fill` raises."""
    temporary = folder / f"{TEMPORARY}{uuid4().hex}-{name}"
    try:
        fill(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def publish(temporary: Path, path: Path) -> bool:
    """Give a staged file its name, unless another writer was first: then theirs stays and False is returned.

    A hard link rather than a rename, because a rename would replace a file that another writer may already have
    committed with bytes that agree only within tolerance.
    """
    try:
        link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)


def link(file: Path, name: Path) -> None:
    """Give a file another name, by a hard link. Raises FileExistsError for one that is taken.

    Raises StoreError where the file system has no hard links.
    """
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StoreError(
            f"{name.parent}: its file system has no hard links ({error.strerror}), by which a store's files appear "
            "whole and once. Name a store on another one with --store; for a store in a bucket, another folder of "
            "copies with $VOCABSEM_CACHE."
        ) from error


def remove_folder(root: Path, folder: Path) -> None:
    """Remove a step's folder below a store's, whole or half, so that at no moment a part of it counts."""
    (folder / MARKER).unlink(missing_ok=True)
    aside = root / f"{TEMPORARY}{uuid4().hex}"
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another was quicker
        return
    shutil.rmtree(aside)


def replace_json(path: Path, value: Any) -> None:
    """Write a JSON document that may change later (a run record, never an artifact)."""
    replace_bytes(path, json_bytes(value))


def replace_bytes(path: Path, data: bytes) -> None:
    """Write such a document, whatever it is: a reader finds the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(stage(path.parent, path.name, lambda place: place.write_bytes(data)), path)


def json_bytes(value: Any) -> bytes:
    """JSON for a person to read, the same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def owner(path: Path) -> str:
    """Whose a file is, by name where this machine knows it."""
    try:
        return path.owner()
    except KeyError:  # a user of another machine
        return f"user {path.stat().st_uid}"
