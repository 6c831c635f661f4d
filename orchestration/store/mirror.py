"""A store in a bucket, seen through a folder of this machine that holds copies of what was needed of it.

The bucket has the layout of a store's folder (artifacts.py), and it decides: what it does not hold does not exist,
whatever lies here. Every file goes to the bucket before it gets its name here, so a file that has its name is one of
the bucket's. A reader fetches marker, manifest and identity when it looks an artifact up, and each data file when it is
opened, compared with the manifest's checksum before it gets its name. A copy may be removed at any time: it is fetched
again.

Scratch folders, leases, remembered facts and MLflow's database stay in the folder here. It has the same path on every
node of a cluster, where it is made as needed; it may be a folder that all nodes share.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import xxhash

from orchestration.errors import Damage, DamagedArtifact, StoreError
from orchestration.graph import is_folder
from orchestration.host.paths import expanded
from orchestration.store import files
from orchestration.store.files import MARKER, TEMPORARY
from orchestration.store.object_store import Object, ObjectStore, parse

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"
_LARGE = 8 << 20  # bytes of a file that is worth more than one request
_THREADS = 16  # requests at the same time, where many are asked
_HEAD = ("identity.json", "provenance.json")  # of an artifact, with manifest and marker
_SYNCED = "synced.json"  # beside the copies
_PATIENCE_SECONDS = 60  # with another process that writes it, which takes a moment
_committed: set[tuple[str, Path, str]] = set()  # (bucket, root, place) of artifacts that this process has seen there
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Mirror:
    """A bucket and the folder of its copies. Plain data, so that it travels to workers.

    A *place* is a step folder below the store, a path always one below `root`.

    Attributes:
        listed: objects of the steps in question by their keys, where one look shall answer many questions.
    """

    bucket: ObjectStore
    root: Path
    listed: Mapping[str, Object] | None = field(default=None, compare=False, repr=False)

    def key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def url(self, path: Path) -> str:
        """What a file here is called in the bucket."""
        return self.bucket.url(self.key(path))

    def looking(self, steps: Iterable[str] | None = None) -> Mirror:
        """With a listing of the artifacts of the named steps, or of all: round trips by thousands of objects."""
        found = at_once(lambda name: self.bucket.listing(f"{name}/"), self.bucket.folders() if steps is None else steps)
        return replace(self, listed={key: entry for part in found for key, entry in part.items()})

    def committed(self, place: str) -> bool:
        """Whether the bucket holds a committed artifact. A copy of one that it does not hold is removed."""
        known, key, here = (str(self.bucket), self.root, place), f"{place}/{MARKER}", self.root / place / MARKER
        if known in _committed:
            return True
        found: object = self.listed.get(key) if self.listed is not None else self.bucket.find(key)
        if here.is_file() and (not isinstance(found, Object) or found.etag != _etag(here)):
            found = self.bucket.get(key)  # a listing may be older than the copy, a tag is not always of the bytes
            if found != here.read_bytes():
                files.remove_folder(self.root, here.parent)
        if found is not None:
            _committed.add(known)
        return found is not None

    def download(self, place: str) -> None:
        """Have a committed artifact's marker, manifest, identity and provenance here. Raises DamagedArtifact."""
        folder = self.root / place
        if (folder / MARKER).is_file():
            return
        _make(folder)
        manifest = self._manifest(place)
        for name, entry in json.loads(manifest)["files"].items():
            if name in _HEAD and (damage := self.fetch(folder / name, entry)):
                raise DamagedArtifact(damage)
        self._keep(folder / _MANIFEST, manifest)
        self._keep(folder / MARKER, f"{xxhash.xxh3_128_hexdigest(manifest)}\n".encode())

    def fetch(self, path: Path, entry: Mapping[str, Any]) -> Damage | None:
        """Fetch an artifact's file; what is wrong with it, and then nothing is here.

        Raises StoreError where there is no room.
        """
        _make(path.parent)
        temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}-{path.name}")
        try:
            size = entry["bytes"] if entry["bytes"] > _LARGE else None
            if not self.bucket.download(self.key(path), temporary, size):
                return Damage(self.url(path), "no object", f"{entry['bytes']} bytes")
            if damage := files.damage_of(temporary, entry, every_byte=True, name=self.url(path)):
                return damage
            os.replace(temporary, path)
            _log.debug("fetched %s (%d bytes)", self.url(path), entry["bytes"])
            return None
        except OSError as error:
            raise _no_room(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def differs(self, path: Path, entry: Mapping[str, Any], there: Mapping[str, Object]) -> Damage | None:
        """How the size of a file's object differs from its entry, by a listing of its folder or of more."""
        found = there.get(self.key(path))
        if found is not None and found.bytes == entry["bytes"]:
            return None
        return Damage(
            self.url(path), "no object" if found is None else f"{found.bytes} bytes", f"{entry['bytes']} bytes"
        )

    def upload_if_absent(self, path: Path, temporary: Path) -> None:
        """Put a staged file into the bucket, or take the bytes of the writer that was first; then give it its name."""
        key = self.key(path)
        try:
            if not self.bucket.create(key, temporary) and not self.bucket.download(key, temporary):
                raise StoreError(f"{self.url(path)}: removed while it was written; run again")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def bring_begun(self, folder: Path) -> Mapping[str, Object]:
        """A listing of what the bucket holds of an artifact that may be unfinished.

        Afterwards its small files are here, shards' sidecars among them, and no file that it does not hold.
        """
        _make(folder)
        there = self.bucket.listing(f"{self.key(folder)}/")
        for path in folder.iterdir():
            key = self.key(path)
            if not path.name.startswith(TEMPORARY) and key not in there and self.bucket.find(key) is None:
                path.unlink(missing_ok=True)
        small = {self.root / key: entry for key, entry in there.items() if key.endswith(".json")}
        at_once(self._copy, [path for path, entry in small.items() if not path.is_file() or _etag(path) != entry.etag])
        return there

    def names(self, steps: Iterable[str] | None = None) -> Mapping[str, Mapping[str, Object]]:
        """Every place in the bucket with its objects by file name, committed or not."""
        listed = self.listed if self.listed is not None else (self.looking(steps).listed or {})
        places: dict[str, dict[str, Object]] = {}
        for key, entry in sorted(listed.items()):
            place, _, name = key.rpartition("/")
            if is_folder(place):
                places.setdefault(place, {})[name] = entry
        return places

    def bring_all(self, places: Iterable[str]) -> None:
        """Have the small files of many committed artifacts here; one that is damaged tells so when it is read."""

        def one(place: str) -> None:
            if self.committed(place):
                try:
                    self.download(place)
                except DamagedArtifact:
                    return

        at_once(one, places)

    def damages(self, place: str) -> Iterator[Damage]:
        """What is wrong with the bucket's own bytes of an artifact, or of the shards of an unfinished one."""
        folder, there = self.root / place, self.bucket.listing(f"{place}/")
        try:
            entries = json.loads(self._manifest(place))["files"] if f"{place}/{MARKER}" in there else {}
        except DamagedArtifact as error:
            yield error.damage
            return
        for key in sorted(there) if not entries else ():
            if fnmatch.fnmatch(key, f"{place}/part-*.json"):
                try:
                    entry = json.loads(self.bucket.get(key) or b"")
                    entries[f"{Path(key).stem}.arrow"] = {name: entry[name] for name in ("bytes", "xxh3")}
                except (ValueError, KeyError, TypeError) as error:
                    yield Damage(self.bucket.url(key), type(error).__name__, "the size and checksum of a shard")
        for name, entry in entries.items():
            if damage := self._damage(folder / name, entry):
                yield damage

    def remove(self, place: str) -> None:
        """Remove an artifact, finished or not: its marker first, its copy last."""
        _committed.discard((str(self.bucket), self.root, place))
        self.bucket.delete([f"{place}/{MARKER}"])
        self.bucket.delete(self.bucket.listing(f"{place}/"))
        files.remove_folder(self.root, self.root / place)

    def upload(self, folder: Path, place: str) -> None:
        """Put the files of a whole artifact, its manifest and marker last, as a writer does."""
        names = sorted(path.name for path in folder.iterdir() if path.name not in (_MANIFEST, MARKER))
        for name in [*names, _MANIFEST, MARKER]:
            self.bucket.create(f"{place}/{name}", folder / name)

    def pull(self, start: str, *patterns: str) -> list[str]:
        """Bring what changed in the bucket of the documents whose keys start so, unless it changed here too.

        Unlike artifacts they may change: records of runs. Returns the keys in the bucket, whatever their names are.
        """
        known = self._synced()  # before all else: what another process writes here from now on counts as changed here
        there = self.bucket.listing(start)

        def differs(key: str) -> bool:
            path, (ours, theirs) = self.root / key, known.get(key, (None, None))
            wanted = any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
            return wanted and there[key].etag != theirs and (not path.is_file() or ours == _state(path))

        with self._remembering() as touched:

            def download(key: str) -> None:
                if (data := self.bucket.get(key)) is not None:  # unless it was removed there meanwhile
                    touched[key] = [_replace(self.root / key, data, there[key].modified), there[key].etag]

            at_once(download, filter(differs, there))
        return list(there)

    def push(self, folder: Path, without: str, last: str) -> None:
        """Put what changed here in a folder of such documents since they were compared last, all but `without`.

        `last`: the one by which another machine knows that the others are there.
        """
        known, there = self._synced(), self.bucket.listing(f"{self.key(folder)}/")
        with self._remembering() as touched:
            for path in sorted(folder.iterdir(), key=lambda path: (path.name == last, path.name)):
                if path.is_file() and path.name != without and not path.name.startswith(TEMPORARY):
                    key, state = self.key(path), _state(path)
                    if key not in there or known.get(key, [None])[0] != state:
                        touched[key] = [state, self.bucket.put(key, path).etag]

    def _manifest(self, place: str) -> bytes:
        """The bucket's own. Raises DamagedArtifact where it does not match its marker, or is another artifact's."""
        marker, manifest = (self.bucket.get(f"{place}/{name}") for name in (MARKER, _MANIFEST))
        url, expected = self.url(self.root / place / _MANIFEST), (marker or b"none").decode(errors="replace").strip()
        found = "no object" if manifest is None else xxhash.xxh3_128_hexdigest(manifest)
        if manifest is None or found != expected:
            raise DamagedArtifact(Damage(url, found, f"{expected!r} ({MARKER})"))
        if not (key := json.loads(manifest)["key"]).startswith(Path(place).name):
            raise DamagedArtifact(Damage(url, f"key {key}", f"one that begins with {Path(place).name}"))
        return manifest

    def _damage(self, path: Path, entry: Mapping[str, Any]) -> Damage | None:
        blocks = self.bucket.stream(self.key(path))
        if blocks is None:
            return Damage(self.url(path), "no object", f"{entry['bytes']} bytes")
        digest, size = xxhash.xxh3_128(), 0
        for block in blocks:
            digest.update(block)
            size += len(block)
        if size != entry["bytes"]:
            return Damage(self.url(path), f"{size} bytes", f"{entry['bytes']} bytes")
        if digest.hexdigest() != entry["xxh3"]:
            return Damage(self.url(path), f"checksum {digest.hexdigest()}", f"checksum {entry['xxh3']}")
        return None

    def _copy(self, path: Path) -> None:
        if (data := self.bucket.get(self.key(path))) is not None:
            self._keep(path, data)

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            files.replace_bytes(path, data)
        except OSError as error:
            raise _no_room(path, error) from error

    def _synced(self) -> dict[str, Any]:
        """Key -> state here and tag there of documents when they were compared last."""
        try:
            return dict(json.loads((self.root.parent / _SYNCED).read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    @contextmanager
    def _remembering(self) -> Iterator[dict[str, Any]]:
        """Remember of documents what is put here, even if the rest of them fails.

        Of these alone: other processes of this machine compare others meanwhile, and one that is forgotten would count
        as changed here, whatever the bucket gets.
        """
        from filelock import FileLock

        touched: dict[str, Any] = {}
        try:
            yield touched
        finally:
            if touched:
                path = self.root.parent / _SYNCED
                try:
                    with FileLock(path.with_name(f"{_SYNCED}.lock"), timeout=_PATIENCE_SECONDS):
                        files.replace_json(path, {**self._synced(), **touched})
                except OSError as error:
                    raise _no_room(path, error) from error


def open_mirror(url: str, name: str, content: bytes, fill: bool) -> tuple[Mirror, bytes | None]:
    """A bucket's mirror on this machine, and what the bucket's object `name` holds.

    Args:
        url: s3://bucket/prefix.
        name: of an object that marks a store.
        content: what it holds in a new one.
        fill: whether to make it where there is none.

    Raises StoreError where the bucket does not answer, and where the folder of copies cannot be written.
    """
    bucket = parse(url)
    given = os.environ.get("VOCABSEM_CACHE")
    try:
        cache = Path(expanded(given) if given else Path.home() / ".cache" / "vocabsem").absolute()
    except ValueError as error:
        raise StoreError(f"$VOCABSEM_CACHE {given}: {error}") from error
    root = cache / f"{bucket.name}-{xxhash.xxh3_64_hexdigest(f'{bucket.endpoint} {bucket}'.encode())}" / "store"
    try:
        root.mkdir(parents=True, exist_ok=True)
        made = files.stage(root, name, lambda place: place.write_bytes(content))
    except OSError as error:
        raise StoreError(
            f"{root}: the folder of {bucket} on this machine cannot be written ({error.strerror}); name another with "
            "$VOCABSEM_CACHE"
        ) from error
    try:
        opened, found = bucket.opened(name, made if fill else None)
    finally:
        made.unlink(missing_ok=True)
    return Mirror(opened, root), found


def at_once(function: Callable[[_T], _R], values: Iterable[_T]) -> list[_R]:
    """A function of many values in threads, since most of its time is waiting."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, values))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_room(folder, error) from error


def _no_room(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: a copy from the bucket cannot be written ({error.strerror or error}); make room, or name another "
        "folder with $VOCABSEM_CACHE. The bucket is whole."
    )


def _replace(path: Path, data: bytes, modified: float) -> list[int]:
    """Give a document the bucket's bytes and time; its state, also if another process writes to it right after."""

    def fill(place: Path) -> None:
        place.write_bytes(data)
        os.utime(place, (modified, modified))

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.stage(path.parent, path.name, fill)
        state = _state(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise _no_room(path, error) from error
    return state


def _etag(path: Path) -> str:
    """The tag that most servers give an object of these bytes, put in one piece."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
