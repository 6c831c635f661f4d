"""The errors this package raises on purpose. Each says what was found, where, what was expected and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class UserError(Exception):
    """An error that the user can fix. Only its message is shown; any other error is shown as a traceback.

    Attributes:
        exit_code: what the command line returns for it: 2 for a user's mistake, 1 for a failed step or damage.
    """

    exit_code: int = 2


def exit_code_of(error: BaseException) -> int | None:
    """The exit status of an error of which only the message is shown; None for any other, which is a bug.

    `vocabsem_core` imports nothing from here: its InputError is known by having an exit status, as a UserError has.
    """
    return getattr(error, "exit_code", None)


class StoreError(UserError):
    """The store cannot be used: it is not writable, has another version, or an artifact is missing."""


class Unwritable(StoreError):
    """A file of the store cannot be written: no space, no permission."""


class NotFound(StoreError):
    """The store has no run or artifact with this name, or more than one."""


class ClusterError(UserError):
    """Ray cannot be reached or started."""


class WorkerError(UserError):
    """What a worker process raised, with its message and exit status."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message, exit_code)  # both: it travels between processes
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.args[0]


class LeaseLost(Exception):
    """Another driver took over while this writer did not respond, and commits the artifact instead."""


class Stalled(UserError):
    """Workers sent no heartbeat for too long, too often."""

    exit_code = 1


class OutOfMemory(UserError):
    """A step needed more memory than it is allowed, or than its node has."""

    exit_code = 1


@dataclass(frozen=True)
class Damage:
    """One thing wrong with a committed artifact."""

    file: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}: found {self.found}, expected {self.expected}"


class DamagedArtifact(UserError):
    """A committed file is missing, of another size, or does not match its checksum."""

    exit_code = 1

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage)
        self.damage = damage

    def __str__(self) -> str:
        folder = self.damage.file.rpartition("/")[0]  # of a file, or of an object in a bucket
        return f"{self.damage}. Remove the folder {folder} and run again to recompute it."
