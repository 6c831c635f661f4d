"""Filling an artifact: files that appear whole, a manifest, and a marker written last (artifacts.py has the layout)."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.errors import DamagedArtifact, LeaseLost, StoreError, Unwritable
from orchestration.graph import key_of
from orchestration.store import files
from orchestration.store.files import MARKER, damage_of
from orchestration.store.leases import Lease
from orchestration.store.mirror import Mirror
from orchestration.store.object_store import Object

FORMAT = 1  # of a store


@dataclass(frozen=True)
class Writer:
    """Fills one artifact. Plain data, so that it travels to workers.

    Attributes:
        lease: the right to commit, where others may want to fill the same artifact.
        mirror: of the bucket where every file goes first, and stays if it was the first of its name.
    """

    folder: Path
    payload: Mapping[str, Any]
    sources: Mapping[str, str]
    lease: Lease | None = None
    mirror: Mirror | None = None

    @property
    def committed(self) -> bool:
        there = (self.folder / MARKER).is_file()
        return there if self.mirror is None or not there else self.mirror.committed(self.mirror.key(self.folder))

    def begin(self) -> None:
        """Make the folder and write the identity. Raises StoreError where that is not possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self._begun()
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
        if self.mirror is not None and not data.is_file():  # of another node; its bytes are compared when they are read
            return True
        if damage := damage_of(data, json.loads(sidecar.read_text()), every_byte=True):
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

        Args:
            index: of the shard, from 0.
            table: a pyarrow.Table.
            numerics: device, dtype, batch size, threads.
            measured: seconds and memory it took; see `measured_in_all`.
        """
        from orchestration.store import arrow

        name = f"{_part(index)}.arrow"
        self._publish(name, lambda path: arrow.write_table(path, table))
        rows = arrow.read_table(self.folder / name).num_rows  # of the file there, which may be another writer's
        made = {"numerics": dict(numerics or {}), "measured": dict(measured or {})}
        entry = {**files.entry_of(self.folder / name), "rows": rows, **made}
        self._write(f"{_part(index)}.json", files.json_bytes(entry))

    def measured_in_all(self) -> dict[str, float]:
        """What every shard was measured by: seconds added up, of all else the largest. Costs, never part of a key."""
        self._begun()
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
        there = self._begun()
        found = [Path(key) for key in there] if self.mirror else list(self.folder.iterdir())
        names = sorted(path.name for path in found if not path.name.startswith(files.TEMPORARY))
        names = [name for name in names if name not in (MARKER, "manifest.json")]
        sidecars = {name: json.loads((self.folder / name).read_text()) for name in names if _is_sidecar(name)}
        expected = [f"{_part(index)}.json" for index in range(len(sidecars) if shard_count is None else shard_count)]
        if list(sidecars) != expected:
            raise StoreError(
                f"{self.folder}: holds the shards {list(sidecars)}, expected {len(expected)} from {_part(0)} on. It "
                "was started by another version: remove the folder and run again."
            )
        data = {
            f"{name[:-5]}.arrow": {key: entry[key] for key in ("bytes", "xxh3")} for name, entry in sidecars.items()
        }
        for name, entry in data.items():  # checksums stay those taken at writing, so that damage since is not signed
            path = self.folder / name
            damage = self.mirror.differs(path, entry, there) if self.mirror else damage_of(path, entry, False)
            if damage:
                raise DamagedArtifact(damage)
        return {
            "format": FORMAT,
            "step": self.payload["step"],
            "key": key_of(self.payload),
            "files": {name: data.get(name) or files.entry_of(self.folder / name) for name in names},
            "shards": [{"file": f"{name[:-5]}.arrow", "rows": entry["rows"]} for name, entry in sidecars.items()],
            "numerics": _distinct(entry["numerics"] for entry in sidecars.values()),
            "sources": dict(self.sources),
        }

    def _begun(self) -> Mapping[str, Object]:
        """A listing of what a bucket holds of the artifact, whose small files are here now."""
        return self.mirror.bring_begun(self.folder) if self.mirror is not None else {}

    def _write(self, name: str, data: bytes) -> None:
        self._publish(name, lambda path: path.write_bytes(data))

    def _publish(self, name: str, fill: Callable[[Path], object]) -> None:
        """Raises StoreError where the disk is full or cannot be written; nothing half-written is left."""
        try:
            if self.mirror is not None:  # another node began it
                self.folder.mkdir(parents=True, exist_ok=True)
            temporary = files.stage(self.folder, name, fill)
            if self.committed:
                temporary.unlink(missing_ok=True)
            elif self.mirror is None:
                files.publish(temporary, self.folder / name)
            else:
                self.mirror.upload_if_absent(self.folder / name, temporary)
        except FileNotFoundError:
            if not self.committed:  # else another writer committed, and its sweep took what was staged here
                raise
        except OSError as error:
            raise unwritable(self.folder / name, error) from error


def unwritable(path: Path, error: OSError) -> Unwritable:
    """What a file that cannot be written means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unwritable(
            f"{path}: cannot be written ({error.strerror}). What is committed is safe: make room and run again, or "
            "name a store on another disk with --store."
        )
    return Unwritable(
        f"{path}: cannot be written ({error.strerror or error}). Name a folder you can write to with --store or "
        "$VOCABSEM_STORE."
    )


def _part(index: int) -> str:
    return f"part-{index:05d}"


def _is_sidecar(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".json")


def _distinct(values: Iterator[Any]) -> list[Any]:
    return [json.loads(text) for text in sorted({json.dumps(value, sort_keys=True) for value in values})]
