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
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestration import files
from orchestration.errors import Damage, DamagedArtifact, LeaseLost, StoreError
from orchestration.graph import Step, key_of
from orchestration.leases import Lease

FORMAT = 1
MARKER = "COMMITTED"
_VERSION_FILE = "VOCABSEM_STORE.json"
_verified: set[tuple[str, str]] = set()  # (file, checksum) read and found right by this process


@dataclass(frozen=True)
class Artifact:
    """A committed artifact, read only."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Raises DamagedArtifact where the manifest does not match the marker."""
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

        Raises DamagedArtifact where it is missing or differs, KeyError for a name the artifact does not list.
        """
        entry = self.manifest["files"][name]
        path = self.folder / name
        if (str(path), entry["xxh3"]) not in _verified:
            if damage := _compare(path, entry, every_byte=True):
                raise DamagedArtifact(damage)
            _verified.add((str(path), entry["xxh3"]))
        return path

    def shard(self, index: int) -> Path:
        """One shard's file, checked."""
        return self.path(self.manifest["shards"][index]["file"])

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())

    def damages(self, every_byte: bool) -> Iterator[Damage]:
        """What is wrong: marker and sizes only, or every byte."""
        try:
            manifest = self.manifest
        except DamagedArtifact as error:
            yield error.damage
            return
        for name, entry in manifest["files"].items():
            if damage := _compare(self.folder / name, entry, every_byte):
                yield damage
        if not manifest["key"].startswith(self.folder.name):
            yield Damage(str(self.folder), self.folder.name, f"a folder named {manifest['key'][:16]}")

    def shard_damages(self) -> Iterator[Damage]:
        """What is wrong with the shards that are committed, of an artifact that may not be."""
        for sidecar in sorted(self.folder.glob("part-*.json")):
            try:
                entry = json.loads(sidecar.read_text())
                damage = _compare(sidecar.with_suffix(".arrow"), entry, every_byte=True)
            except (ValueError, KeyError, TypeError) as error:
                damage = Damage(str(sidecar), type(error).__name__, "the size and checksum of a shard")
            if damage:
                yield damage


@dataclass(frozen=True)
class Writer:
    """Fills one artifact. Plain data, so that it travels to workers.

    Attributes:
        lease: the right to commit, where others may want to fill the same artifact.
    """

    folder: Path
    payload: Mapping[str, Any]
    sources: Mapping[str, str]
    lease: Lease | None = None

    @property
    def committed(self) -> bool:
        return (self.folder / MARKER).is_file()

    def begin(self) -> None:
        """Make the folder and write the identity. Raises StoreError where that is not possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._write("identity.json", files.json_bytes(self.payload))
        known = json.loads((self.folder / "identity.json").read_text())
        if known != json.loads(files.json_bytes(self.payload)):
            raise StoreError(
                f"{self.folder}: holds another step's identity. Two keys share their first digits, or the file was "
                "edited; move the folder away and run again."
            )

    def shard_committed(self, index: int) -> bool:
        """Whether a shard is there, whole and right; a right one is never written again."""
        sidecar, data = self.folder / f"{_part(index)}.json", self.folder / f"{_part(index)}.arrow"
        if not sidecar.is_file():
            return False
        if damage := _compare(data, json.loads(sidecar.read_text()), every_byte=True):
            raise DamagedArtifact(damage)
        return True

    def write_shard(
        self,
        index: int,
        table: Any,
        numerics: Mapping[str, Any] | None = None,
        measured: Mapping[str, float] | None = None,
    ) -> None:
        """Write and commit one shard: the file first, then its sidecar with the checksum of the file that is there.

        `measured`: what it took to make; see `measured_in_all`.
        """
        from orchestration import shards

        name = f"{_part(index)}.arrow"
        self._publish(name, lambda path: shards.write_table(path, table))
        rows = shards.read_table(self.folder / name).num_rows  # of the file there, which may be another writer's
        made = {"numerics": dict(numerics or {}), "measured": dict(measured or {})}
        entry = {**_entry(self.folder / name), "rows": rows, **made}
        self._write(f"{_part(index)}.json", files.json_bytes(entry))

    def measured_in_all(self) -> dict[str, float]:
        """What every shard was measured by: seconds added up, of all else the largest. Costs, never part of a key."""
        sidecars = [json.loads(path.read_text()) for path in sorted(self.folder.glob("part-*.json"))]
        found = [sidecar.get("measured", {}) for sidecar in sidecars]
        names = set.intersection(*(set(one) for one in found)) if found else set()
        return {name: (sum if name.endswith("seconds") else max)(one[name] for one in found) for name in sorted(names)}

    def write(self, name: str, data: bytes) -> None:
        """Write one more file of the artifact."""
        self._write(name, data)

    def commit(self, provenance: Mapping[str, Any], shard_count: int | None = None) -> None:
        """List every file in the manifest and write the marker. Losing the race to another writer is not an error.

        Raises StoreError where the shards there are not the first `shard_count` (None: any number, without a gap), and
        LeaseLost where another has taken the work over and has not committed it yet.
        """
        self._write("provenance.json", files.json_bytes(dict(provenance)))
        self._write("manifest.json", files.json_bytes(self._manifest(shard_count)))
        if self.lease is not None and not self.lease.kept and not self.committed:
            raise LeaseLost(f"{self.folder}: another run has taken over")
        self._write(MARKER, files.checksum(self.folder / "manifest.json").encode() + b"\n")
        for leftover in self.folder.glob(f"{files.TEMPORARY}*"):
            leftover.unlink(missing_ok=True)

    def _manifest(self, shard_count: int | None) -> dict[str, Any]:
        names = sorted(path.name for path in self.folder.iterdir())
        names = [
            name for name in names if not name.startswith(files.TEMPORARY) and name not in (MARKER, "manifest.json")
        ]
        sidecars = {name: json.loads((self.folder / name).read_text()) for name in names if _is_sidecar(name)}
        expected = [f"{_part(index)}.json" for index in range(len(sidecars) if shard_count is None else shard_count)]
        if list(sidecars) != expected:
            raise StoreError(
                f"{self.folder}: holds the shards {list(sidecars)}, expected {len(expected)} from {_part(0)} on. It "
                "was begun by another version: remove the folder and run again."
            )
        data = {
            f"{name[:-5]}.arrow": {key: entry[key] for key in ("bytes", "xxh3")} for name, entry in sidecars.items()
        }
        for name, entry in data.items():  # checksums stay those taken at writing, so that damage since is not signed
            if damage := _compare(self.folder / name, entry, every_byte=False):
                raise DamagedArtifact(damage)
        return {
            "format": FORMAT,
            "step": self.payload["step"],
            "key": key_of(self.payload),
            "files": {name: data.get(name) or _entry(self.folder / name) for name in names},
            "shards": [{"file": f"{name[:-5]}.arrow", "rows": entry["rows"]} for name, entry in sidecars.items()],
            "numerics": _distinct(entry["numerics"] for entry in sidecars.values()),
            "sources": dict(self.sources),
        }

    def _write(self, name: str, data: bytes) -> None:
        self._publish(name, lambda path: path.write_bytes(data))

    def _publish(self, name: str, fill: Callable[[Path], object]) -> None:
        """Raises StoreError where the disk is full or cannot be written; nothing half-written is left."""
        try:
            temporary = files.stage(self.folder, name, fill)
            if self.committed:
                temporary.unlink(missing_ok=True)
            else:
                files.publish(temporary, self.folder / name)
        except FileNotFoundError:
            if not self.committed:  # else another writer committed, and its sweep took what was staged here
                raise
        except OSError as error:
            raise _unwritable(self.folder / name, error) from error


@dataclass(frozen=True)
class Store:
    """A folder of artifacts. Open it with `open_store`."""

    root: Path

    def find(self, step: Step) -> Artifact | None:
        """A step's committed artifact, or None. Raises DamagedArtifact where its marker or a file's size is wrong."""
        artifact = Artifact(self.root / step.folder)
        if not (artifact.folder / MARKER).is_file():
            return None
        for damage in artifact.damages(every_byte=False):
            raise DamagedArtifact(damage)
        return artifact

    def artifacts(self) -> list[Artifact]:
        """Every committed artifact, by step and key."""
        return [Artifact(marker.parent) for marker in sorted(self.root.glob(f"*/*/{MARKER}"))]

    def holds(self, step: Step) -> bool:
        """Whether a step's artifact is committed, by its marker alone."""
        return (self.root / step.folder / MARKER).is_file()

    def writer(self, step: Step, lease: Lease | None = None) -> Writer:
        return Writer(self.root / step.folder, step.payload, source_digests(step.sources), lease)


def existing_store(root: Path) -> Store:
    """Open a store to read it. Raises StoreError where there is none: a misspelt folder is no empty store."""
    if not (root / _VERSION_FILE).is_file():
        raise StoreError(f"{root.absolute()}: no store; run a workflow first, or name its folder with --store")
    return open_store(root)


def open_store(root: Path) -> Store:
    """Open a store, making it where there is none.

    Raises StoreError where it cannot be written or has another format.
    """
    root = root.absolute()
    version = root / _VERSION_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not version.is_file():
            files.publish(files.stage(root, version.name, lambda path: path.write_bytes(_version())), version)
    except OSError as error:
        raise _unwritable(root, error) from error
    try:
        found = json.loads(version.read_text())["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{version}: not a store's version file ({error}); expected {_version().decode().strip()}"
        ) from error
    if found != FORMAT:
        raise StoreError(
            f"{root}: a store of format {found}; this version of vocabsem reads format {FORMAT}. Name another "
            "folder with --store, or use the version that made it."
        )
    return Store(root)


def source_digests(modules: tuple[str, ...]) -> dict[str, str]:
    """module -> checksum of its source file. Advisory: a change is shown, it does not change a key."""
    from importlib.util import find_spec

    specs = {module: find_spec(module) for module in modules}
    return {module: files.checksum(Path(spec.origin)) for module, spec in specs.items() if spec and spec.origin}


def _version() -> bytes:
    return json.dumps({"format": FORMAT}).encode() + b"\n"


def _part(index: int) -> str:
    return f"part-{index:05d}"


def _is_sidecar(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".json")


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "xxh3": files.checksum(path)}


def _compare(path: Path, entry: Mapping[str, Any], every_byte: bool) -> Damage | None:
    if not path.is_file():
        return Damage(str(path), "no file", f"{entry['bytes']} bytes")
    if (size := path.stat().st_size) != entry["bytes"]:
        return Damage(str(path), f"{size} bytes", f"{entry['bytes']} bytes")
    if every_byte and (found := files.checksum(path)) != entry["xxh3"]:
        return Damage(str(path), f"checksum {found}", f"checksum {entry['xxh3']}")
    return None


def _distinct(values: Iterator[Any]) -> list[Any]:
    return [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in values})]


def _unwritable(path: Path, error: OSError) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"{path}: cannot be written ({error.strerror}). What is committed is safe: make room and run again, or "
            "name a store on another disk with --store."
        )
    return StoreError(
        f"{path}: cannot be written ({error.strerror or error}). Name a folder you can write to with --store or "
        "$VOCABSEM_STORE."
    )
