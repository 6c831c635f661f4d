"""The errors of this package: a user's file or argument that cannot be used, and a signal that asked for an end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestration.errors import UserError

Place = tuple[str | int, ...]  # of a value in a YAML document: field names and list indices from the top


class ConfigError(UserError):
    """Says the file, the line, the field, what was found, what was expected and what to do.

    Attributes:
        place: the field of the workflow file that it is about, where the message does not name file and line yet.
    """

    def __init__(self, message: str, place: Place = ()) -> None:
        super().__init__(message)
        self.place = place


class StepsFailed(UserError):
    """Steps that a command needs have failed; the message names each with its error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(Exception):
    """A command was ended by a signal, and left everything in order. The message says how to go on.

    Attributes:
        said: whether a person was told it already.
    """

    def __init__(self, message: str, said: bool = False) -> None:
        super().__init__(message)
        self.said = said


class YamlError(ConfigError):
    """A YAML file that cannot be used; the message names file and line."""


@contextmanager
def in_field(*place: str | int) -> Iterator[None]:
    """Whatever ConfigError is raised within is about this field of the workflow file."""
    try:
        yield
    except YamlError:
        raise
    except ConfigError as error:
        raise ConfigError(str(error), error.place or place) from error


def nearest(name: str, known: list[str], otherwise: str = "") -> str:
    """A hint for a misspelt name: the nearest right one; where none is near, `otherwise` or all of them."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else otherwise or f"known: {', '.join(sorted(known))}."
