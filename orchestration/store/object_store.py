"""Stores of objects: what a store in a bucket asks of one, and the kinds there are, by how an address begins.

A new kind is a module here with a class that has the members of `ObjectStore` and a function that makes it of an
address, and a line in `_KINDS`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestration.errors import StoreError

_KINDS = {"s3://": "s3"}  # scheme -> the module in this folder whose `parse` reads an address
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class Object:
    """An object as a listing tells it. `modified`: seconds since 1970, by the server's clock."""

    bytes: int
    etag: str
    modified: float


class ObjectStore(Protocol):
    """Objects below a prefix of a bucket: made once, read, listed, removed. Plain data, so that it travels to workers.

    As text it is its address, which `parse` reads. All keys are below the prefix. Every method raises StoreError for
    what the server refuses or does not answer. Of any number of writers of one key one wins, and what it made never
    changes: `create` has to be conditional, or to look before it puts.

    Attributes:
        name: of the bucket.
        endpoint: the server's address, without credentials.
        node_setup: a sentence on what a process on another node needs to reach the same server.
    """

    @property
    def name(self) -> str: ...

    @property
    def endpoint(self) -> str: ...

    @property
    def node_setup(self) -> str: ...

    def opened(self, key: str, made: Path | None) -> tuple[ObjectStore, bytes | None]:
        """The store once it has answered, and what its object `key` holds; `made` is put where there is none."""
        ...

    def url(self, key: str) -> str:
        """An object's address."""
        ...

    def create(self, key: str, file: Path) -> bool:
        """Put a file, unless there is an object of this key: then that one stays and False is returned."""
        ...

    def put(self, key: str, file: Path) -> Object:
        """Put a file, in the place of an object of this key."""
        ...

    def find(self, key: str) -> Object | None:
        """An object's size, tag and time, None where there is none."""
        ...

    def get(self, key: str) -> bytes | None:
        """A small object's bytes, None where there is none."""
        ...

    def stream(self, key: str) -> Iterator[bytes] | None:
        """An object's bytes, block by block, None where there is none."""
        ...

    def download(self, key: str, file: Path, size: int | None = None) -> bool:
        """Write an object to a file; False where there is none. `size`: of one worth several requests at once."""
        ...

    def listing(self, start: str = "") -> dict[str, Object]:
        """Every object whose key starts so."""
        ...

    def folders(self) -> list[str]:
        """What keys begin with, up to their first slash."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; what is not there is no error."""
        ...


def is_url(place: Path | str) -> bool:
    """Whether a store is in a bucket. Raises StoreError for an address of an unknown kind."""
    if isinstance(place, str) and _URL.match(place):
        if _kind(place) is None:
            known = ", ".join(f"{scheme}bucket/prefix" for scheme in _KINDS)
            raise StoreError(f"a store at {place.partition(':')[0]}: is not known; expected a folder, or {known}")
        return True
    return False


def parse(address: str) -> ObjectStore:
    """The object store of an address for which `is_url` holds. Raises StoreError for one that is malformed."""
    kind = _kind(address)
    assert kind is not None, "is_url was asked"
    found: ObjectStore = importlib.import_module(f"orchestration.store.{kind}").parse(address)
    return found


def _kind(address: str) -> str | None:
    return next((kind for scheme, kind in _KINDS.items() if address.startswith(scheme)), None)
