"""One process at a time: a lock file beside what is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestration.tracking.tracker import TrackingError

_PATIENCE_SECONDS = 120  # a sweep's thousand runs take half a minute


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Processes that share this file go through one after the other; one that is killed lets the next one in.

    Two would make a new database's tables at once, or a run twice. Raises TrackingError where it takes too long, or
    where the file cannot be made.
    """
    from filelock import FileLock, Timeout

    try:
        taken = FileLock(lock, timeout=_PATIENCE_SECONDS).acquire()
    except Timeout as error:
        raise TrackingError(
            f"{lock}: another process has been writing to MLflow for {_PATIENCE_SECONDS} s; see whether it is stopped"
        ) from error
    except OSError as error:
        raise TrackingError(f"{lock}: cannot be written ({error.strerror})") from error
    with taken:
        yield
