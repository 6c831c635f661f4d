"""Artifacts on disk: where they lie, how they are committed, how damage is found.

    <store>/<step>/<key[:16]>/
        identity.json        the payload the key was made from
        part-00000.arrow     a shard; part-00000.json beside it commits it (rows, bytes, checksum, numerics)
        manifest.json        every file with bytes and checksum
        provenance.json      versions, host, times
        COMMITTED            the manifest's checksum; written last; without it the artifact does not exist

Any number of writers may fill one artifact at the same time: the first file of a name stays, the others are dropped,
and checksums are taken from the file that stayed. So a late writer is harmless, and a killed one leaves nothing that is
ever read. That two do not do the same work is the business of leases (leases.py).

A store may also be a bucket of this very layout, at s3://bucket/prefix: then the folder here holds copies (mirror.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from orchestration.errors import Damage, DamagedArtifact, StoreError
from orchestration.graph import Step
from orchestration.store import files
from orchestration.store.files import MARKER, damage_of
from orchestration.store.leases import Lease
from orchestration.store.mirror import Mirror, open_mirror
from orchestration.store.object_store import is_url
from orchestration.store.writer import FORMAT, Writer, unwritable

_log = logging.getLogger(__name__)
_VERSION_FILE = "VOCABSEM_STORE.json"
_verified: set[tuple[str, str]] = set()  # (file, checksum) read and found right by this process


@dataclass(frozen=True)
class Artifact:
    """A committed artifact, read only. `mirror`: of the bucket it is in, where it is in one."""

    folder: Path
    mirror: Mirror | None = None

    def __str__(self) -> str:
        return str(self.folder) if self.mirror is None else self.mirror.url(self.folder)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Raises DamagedArtifact where the manifest does not match the marker."""
        if self.mirror is not None:
            self.mirror.download(self.mirror.key(self.folder))
        marker, path = self.folder / MARKER, self.folder / "manifest.json"
        found = files.checksum(path) if path.is_file() else "no file"
        expected = marker.read_bytes()
        if f"{found}\n".encode() != expected:
            raise DamagedArtifact(Damage(str(path), found, f"{expected.decode(errors='replace').strip()!r} ({MARKER})"))
        return json.loads(path.read_text())

    @property
    def rows(self) -> int:
        """Rows over all shards."""
        return sum(shard["rows"] for shard in self.manifest["shards"])

    def shards(self) -> list[Path]:
        """The shard files in order, each checked."""
        return [self.shard(index) for index in range(len(self.manifest["shards"]))]

    def path(self, name: str) -> Path:
        """A file of the artifact. Its checksum is verified the first time this process asks for it.

        A copy from a bucket that was removed since is fetched again.

        Raises DamagedArtifact where it is missing or differs, KeyError for a name the artifact does not list.
        """
        entry = self.manifest["files"][name]
        path = self.folder / name
        known = (str(path), entry["xxh3"])
        if known not in _verified or not path.is_file():
            _verified.discard(known)
            damage = damage_of(path, entry, every_byte=True)
            if damage and self.mirror is not None:  # not here yet, or a copy that is damaged
                damage = self.mirror.fetch(path, entry)
            if damage:
                raise DamagedArtifact(damage)
            _verified.add(known)
        return path

    def download(self) -> None:
        """Have every file here, checked."""
        for name in self.manifest["files"]:
            self.path(name)

    def shard(self, index: int) -> Path:
        """One shard's file, checked."""
        return self.path(self.manifest["shards"][index]["file"])

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())

    def damages(self, every_byte: bool) -> Iterator[Damage]:
        """What is wrong: marker and sizes only, or every byte. In a bucket, sizes are known where it was listed."""
        if self.mirror is not None and every_byte:
            yield from self.mirror.damages(self.mirror.key(self.folder))
            return
        try:
            manifest = self.manifest
        except DamagedArtifact as error:
            yield error.damage
            return
        for name, entry in manifest["files"].items():
            path, damage = self.folder / name, None
            if self.mirror is None:
                damage = damage_of(path, entry, every_byte)
            elif self.mirror.listed is not None:
                damage = self.mirror.differs(path, entry, self.mirror.listed)
            if damage:
                yield damage
        if not (key := manifest["key"]).startswith(self.folder.name):
            yield Damage(str(self.folder / "manifest.json"), f"key {key}", f"one that begins with {self.folder.name}")

    def shard_damages(self) -> Iterator[Damage]:
        """What is wrong with the shards that are committed, of an artifact that may not be."""
        if self.mirror is not None:
            yield from self.mirror.damages(self.mirror.key(self.folder))
            return
        for sidecar in sorted(self.folder.glob("part-*.json")):
            try:
                entry = json.loads(sidecar.read_text())
                damage = damage_of(sidecar.with_suffix(".arrow"), entry, every_byte=True)
            except (ValueError, KeyError, TypeError) as error:
                damage = Damage(str(sidecar), type(error).__name__, "the size and checksum of a shard")
            if damage:
                yield damage


@dataclass(frozen=True)
class Store:
    """A folder of artifacts, or a bucket and the folder of its copies. Open it with `open_store`."""

    root: Path
    mirror: Mirror | None = None

    def __str__(self) -> str:
        return str(self.root) if self.mirror is None else str(self.mirror.bucket)

    def find(self, step: Step) -> Artifact | None:
        """A step's committed artifact, or None. Raises DamagedArtifact where its marker or a file's size is wrong."""
        artifact = self.at(step.folder)
        _log.debug("%s: %s", step.folder, "found" if artifact else "not there")
        for damage in artifact.damages(every_byte=False) if artifact else ():
            raise DamagedArtifact(damage)
        return artifact

    def need(self, step: Step) -> Artifact:
        """A step's committed artifact. Raises StoreError where it is not there, and as `find`."""
        artifact = self.find(step)
        if artifact is None:
            raise StoreError(f"{step.label} is not in {self}; run the workflow that made it again")
        return artifact

    def at(self, place: str) -> Artifact | None:
        """The committed artifact of a step folder, or None. Reads no more than its marker."""
        if self.mirror is None:
            return Artifact(self.root / place) if (self.root / place / MARKER).is_file() else None
        return Artifact(self.root / place, self.mirror) if self.mirror.committed(place) else None

    def artifacts(self, step: str = "*") -> list[Artifact]:
        """Every committed artifact, or those of one step's name, by step and key."""
        if self.mirror is None:
            found = [folder for folder in files.folders(self.root, step) if (folder / MARKER).is_file()]
            return [Artifact(folder) for folder in found]
        names = self.mirror.names(None if step == "*" else (step,))
        places = [place for place, files in names.items() if MARKER in files and step in ("*", place.partition("/")[0])]
        self.mirror.bring_all(places)
        return [Artifact(self.root / place, self.mirror) for place in places if self.mirror.committed(place)]

    def holds(self, step: Step) -> bool:
        """Whether a step's artifact is committed, by its marker alone."""
        return self.at(step.folder) is not None

    def looking(self, places: Iterable[str]) -> Store:
        """The store for one look at many step folders: of a bucket, with a listing, and what is there of them here."""
        if self.mirror is None:
            return self
        places = list(places)
        mirror = self.mirror.looking(sorted({place.partition("/")[0] for place in places}))
        mirror.bring_all(places)
        return Store(self.root, mirror)

    def writer(self, step: Step, lease: Lease | None = None) -> Writer:
        """In a bucket no lease is asked for at commit: it is of this machine alone, and a late writer does no harm."""
        folder, sources = self.root / step.folder, source_digests(step.sources)
        return Writer(folder, step.payload, sources, None if self.mirror else lease, self.mirror)


def existing_store(place: Path | str) -> Store:
    """Open a store to read it. Raises StoreError where there is none: a misspelt folder is no empty store."""
    if is_url(place):
        return _open_bucket(str(place), fill=False)
    if not (Path(place) / _VERSION_FILE).is_file():
        raise StoreError(f"{Path(place).absolute()}: no store; run a workflow first, or name its folder with --store")
    return open_store(place)


def open_store(place: Path | str) -> Store:
    """Open a store, making it where there is none: a folder, or s3://bucket/prefix in a bucket that exists.

    Raises StoreError where it cannot be written or has another format.
    """
    if is_url(place):
        return _open_bucket(str(place), fill=True)
    root = Path(place).absolute()
    version = root / _VERSION_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not version.is_file():
            files.publish(files.stage(root, version.name, lambda path: path.write_bytes(_version())), version)
    except OSError as error:
        raise unwritable(root, error) from error
    _check_ours(str(root), str(version), version.read_bytes())
    return Store(root)


def _open_bucket(url: str, fill: bool) -> Store:
    mirror, found = open_mirror(url, _VERSION_FILE, _version(), fill)
    if found is None:
        raise StoreError(f"{mirror.bucket}: no store; run a workflow first, or name its folder with --store")
    _check_ours(str(mirror.bucket), mirror.bucket.url(_VERSION_FILE), found)
    return Store(mirror.root, mirror)


def _check_ours(store: str, file: str, version: bytes) -> None:
    """Raises StoreError for what is no store's version file, or of another format."""
    try:
        found = json.loads(version)["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file}: not a store's version file ({error}); expected {_version().decode().strip()}"
        ) from error
    if found != FORMAT:
        raise StoreError(
            f"{store}: a store of format {found}; this version of vocabsem reads format {FORMAT}. Name another "
            "folder with --store, or use the version that made it."
        )


def source_digests(modules: tuple[str, ...]) -> dict[str, str]:
    """module -> checksum of its source file. Advisory: a change is shown, it does not change a key."""
    return {module: found for module in modules if (found := _source_digest(module))}


@cache  # many steps share modules, and what runs is the code as it was when it was loaded
def _source_digest(module: str) -> str | None:
    from importlib.util import find_spec

    spec = find_spec(module)
    return files.checksum(Path(spec.origin)) if spec and spec.origin else None


def _version() -> bytes:
    return json.dumps({"format": FORMAT}).encode() + b"\n"
