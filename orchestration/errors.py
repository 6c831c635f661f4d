"""The errors this package raises on purpose. Each says what was found, where, what was expected and what to do.

`exit_code` is what the command line returns for it: 2 for a user's mistake, 1 for a failed step or damage.
"""

from __future__ import annotations

from dataclasses import dataclass


class StoreError(Exception):
    """The store cannot be used as asked: not writable, of another version, or an artifact is missing."""

    exit_code = 2


class Unwritable(StoreError):
    """A file of the store cannot be written: no room, no permission."""


class NotFound(StoreError):
    """The store has no run or artifact of this name, or several."""


class ClusterError(Exception):
    """Ray cannot be reached or started."""

    exit_code = 2


class LeaseLost(Exception):
    """Another driver took over while this writer did not answer: the artifact is that one's to commit."""


class Stalled(Exception):
    """Workers were silent for too long, too often."""

    exit_code = 1


class OutOfMemory(Exception):
    """A step needed more memory than it may have, or than its node has."""

    exit_code = 1


@dataclass(frozen=True)
class Damage:
    """One thing wrong with a committed artifact."""

    file: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}: found {self.found}, expected {self.expected}"


class DamagedArtifact(Exception):
    """A committed file is missing, of another size, or does not match its checksum."""

    exit_code = 1

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage)
        self.damage = damage

    def __str__(self) -> str:
        folder = self.damage.file.rpartition("/")[0]  # of a file, or of an object in a bucket
        return f"{self.damage}. Remove the folder {folder} and run again to make it anew."
