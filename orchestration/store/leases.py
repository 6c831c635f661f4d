"""Who makes an artifact: of all drivers that share a store, on one machine or on many, one at a time.

    <store>/leases/<holder>.json          a driver: host, process, since when, and a number that it keeps raising
    <store>/leases/<step>/<key>/<token>   a hard link to the file of the driver that makes this artifact

A lease is taken by making the link, which one process alone can do, and is given back by removing it. All leases of a
driver are one file, so one small write keeps them all alive. Who waits watches that file's bytes against a clock of its
own: clocks of two hosts are never compared. A lease that does not change for EXPIRY_SECONDS, or whose process is gone
from this very machine, is taken over with the next higher token; a writer looks for its own token right before it
commits. (Fencing tokens: Kleppmann, "How to do distributed locking", 2016; the layout is ours.)

A lease saves double work. That an artifact is whole rests on the store's commit rules, not on clocks.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from orchestration.errors import StoreError
from orchestration.store.files import link

LEASES = "leases"  # the folder of the store that holds them
BEAT_SECONDS = 5.0
EXPIRY_SECONDS = 30.0
_DIGITS = 12  # of the number that is raised; as many always, so that a write in place never leaves half a document


@dataclass(frozen=True)
class Holder:
    """A driver, as its file tells it.

    Attributes:
        name: unlike any other's, ever.
        since: when it began, by its own clock; for people.
        place: where its process number means something (boot and process namespace); "" where that is not known.
        born: the start of the process in the kernel's ticks, since process numbers are used again.
    """

    name: str
    host: str
    pid: int
    since: str
    place: str
    born: str

    @property
    def gone(self) -> bool:
        """Whether its process is known to have ended; only a process of this machine can tell."""
        return self.place != "" and self.place == _place() and self.born != _born(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@dataclass(frozen=True)
class Lease:
    """The right to commit an artifact. Plain data, so that it travels to workers."""

    file: Path
    holder: str

    @property
    def kept(self) -> bool:
        """Whether nobody has taken it over."""
        following = self.file.with_name(str(int(self.file.name) + 1))
        return self._is_ours() and not following.exists()

    def give_back(self) -> None:
        """Let others have it; a lease that was lost stays with whom it belongs to."""
        if self._is_ours():
            self.file.unlink(missing_ok=True)
        _remove_if_empty(self.file.parent)

    def _is_ours(self) -> bool:
        found = _read(self.file)
        return found is not None and found[1].name == self.holder


class Leases:
    """The leases of one driver, kept alive by a thread until they are closed."""

    def __init__(self, store: Path) -> None:
        self._folder = store / LEASES
        self._holder = Holder(uuid4().hex, socket.gethostname(), os.getpid(), _now(), _place(), _born(os.getpid()))
        self._file = self._folder / f"{self._holder.name}.json"
        self._held: set[Lease] = set()
        self._seen: dict[Path, tuple[bytes, float]] = {}  # a lease of another's: its bytes, and since when they stand
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, step_folder: str) -> Lease | Holder:
        """The lease of an artifact (named by its folder below the store), or who has it.

        Raises StoreError for a lease that cannot be read, and where none can be written.
        """
        if self._thread is None:
            self._open()
        folder = self._folder / step_folder
        while True:
            token = 1
            if tokens := _tokens(folder):
                found = _read(current := folder / str(tokens[-1]))
                if found is None:
                    continue  # given back since it was listed
                if not self._has_expired(current, *found):
                    return found[1]
                token = tokens[-1] + 1
            lease = Lease(folder / str(token), self._holder.name)
            if self._link(lease.file):
                if _tokens(folder)[-1:] == [token]:
                    break
                lease.give_back()  # another's higher token came between: theirs it is
        for lower in [old for old in _tokens(folder) if old < token]:  # the lowest first: see `kept`
            (folder / str(lower)).unlink(missing_ok=True)
        self._held.add(lease)
        return lease

    def give_back(self, lease: Lease) -> None:
        """Let others have a lease."""
        lease.give_back()
        self._held.discard(lease)

    def close(self) -> None:
        """Give back what is held and end the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        for lease in list(self._held):
            self.give_back(lease)
        self._file.unlink(missing_ok=True)

    def _open(self) -> None:
        document = {"beat": "0" * _DIGITS, **vars(self._holder)}
        try:
            self._folder.mkdir(exist_ok=True)
            self._file.write_bytes(json.dumps(document).encode() + b"\n")  # not flushed: it goes with the machine
        except OSError as error:
            raise StoreError(
                f"{self._file}: cannot be written ({error.strerror}); make room, or name a folder you can write to"
            ) from error
        self._thread = threading.Thread(target=self._beat, name="leases", daemon=True)
        self._thread.start()

    def _link(self, path: Path) -> bool:
        """Whether this driver's file got the name."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            link(self._file, path)
            return True
        except FileExistsError:  # or a server that did it and whose answer was lost
            return path.is_file() and path.samefile(self._file)
        except FileNotFoundError:
            if not self._file.is_file():
                raise StoreError(f"{self._file} is gone: the folder of leases was removed under this run") from None
            return False  # another removed the empty folder
        except OSError as error:
            raise StoreError(f"{path}: no lease can be written ({error.strerror}); make room and run again") from error

    def _has_expired(self, path: Path, found: bytes, holder: Holder) -> bool:
        if holder.gone:
            return True
        seen, since = self._seen.get(path, (b"", 0.0))
        if seen != found:
            since = time.monotonic()
            self._seen[path] = (found, since)
        return time.monotonic() - since > EXPIRY_SECONDS

    def _beat(self) -> None:
        count, offset = 0, len(b'{"beat": "')
        while not self._closing.wait(BEAT_SECONDS):
            count += 1
            try:
                with open(self._file, "r+b") as file:  # closed each time: what makes other hosts see it over NFS
                    file.seek(offset)
                    file.write(f"{count:0{_DIGITS}}".encode())
            except OSError:  # a moment without the disk; one that lasts costs the leases, which commits find out
                continue


def live_leases(store: Path) -> dict[str, Holder]:
    """Step folder -> holder of every lease that is alive. Takes EXPIRY_SECONDS where one on another host is not."""
    first, deadline = dict(_all(store)), time.monotonic() + EXPIRY_SECONDS
    near = {path for path, (_, holder) in first.items() if holder.place != "" and holder.place == _place()}
    live = {path for path in near if not first[path][1].gone}
    waiting = first.keys() - near
    while waiting and time.monotonic() < deadline:
        time.sleep(min(1.0, EXPIRY_SECONDS / 10))
        live |= {path for path in waiting if _read(path) not in (None, first[path])}
        waiting = {path for path in waiting - live if path.exists()}
    return {str(path.parent.relative_to(store / LEASES)): first[path][1] for path in sorted(live)}


def remove_gone(store: Path) -> None:
    """Remove the files of drivers that are known to have ended."""
    for path in [*(store / LEASES).glob("*/*/*"), *(store / LEASES).glob("*.json")]:
        if (found := _read(path)) is not None and found[1].gone:
            path.unlink(missing_ok=True)
    for folder in (store / LEASES).glob("*/*"):
        _remove_if_empty(folder)


def _all(store: Path) -> Iterator[tuple[Path, tuple[bytes, Holder]]]:
    for path in sorted((store / LEASES).glob("*/*/*")):
        if (found := _read(path)) is not None:
            yield path, found


def _read(path: Path) -> tuple[bytes, Holder] | None:
    """A lease's bytes and whom they name, None where there is none. Raises StoreError where they cannot be read."""
    try:
        raw = path.read_bytes()
        document = json.loads(raw)
        return raw, Holder(**{name: document[name] for name in Holder.__dataclass_fields__})
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            return None
        raise StoreError(f"{path}: the lease cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: not a lease ({type(error).__name__}: {error}); expected one line of JSON that names a process. "
            "Remove the file if no other run uses this store."
        ) from error


def _tokens(folder: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except FileNotFoundError:
        return []


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def _place() -> str:
    """Within what a process number names one process: this boot of this machine, and this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux: then only time tells
        return ""


def _born(pid: int) -> str:
    """When a process of this machine began, "" where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = status.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]  # one that ended and was not waited for yet is none


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
