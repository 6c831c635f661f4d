"""A user's own method: one Python file that holds one class derived from `Method`.

The file's digest is part of every key its results have, so an edited file is another method and its old results stay.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import get_args

from orchestration.errors import exit_code_of
from workflows.config.space import Domain
from workflows.config.strict import Strict
from workflows.errors import ConfigError, nearest
from workflows.inputs.python_files import imported, line_in
from workflows.methods.base import Method, Need

_SUFFIX = ".py"
_ASKED = ("name", "needs")  # what a class must say of itself


def is_own(reference: str) -> bool:
    """Whether a method is named by a file."""
    return reference.endswith(_SUFFIX)


def own_method(file: Path) -> Method:
    """The method a file holds. Raises ConfigError where it cannot be read, run, or holds not exactly one."""
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"method {file}: cannot be read ({error.strerror}); name a Python file") from error
    return _loaded(str(file.absolute()), digest)


@lru_cache
def _loaded(path: str, digest: str) -> Method:
    module = imported(path, f"vocabsem_own_{digest[:16]}")
    classes = [
        found
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, Method) and found.__module__ == module.__name__
    ]
    if len(classes) != 1:
        told = ", ".join(found.__name__ for found in classes) or "none"
        raise ConfigError(f"{path}: holds {len(classes)} methods ({told}); expected one class derived from Method")
    found = classes[0]
    if wrong := _wrong(found):
        raise ConfigError(f"{path}{_line_of(found)}: class {found.__name__} {wrong}; see docs/own-method.md")
    try:
        method = found()
    except Exception as error:
        line = line_in(error, path) or _line_of(found)
        raise ConfigError(f"{path}{line}: {found.__name__}(): {type(error).__name__}: {error}") from error
    method.source_file, method.source_digest = path, digest
    return method


def _wrong(found: type[Method]) -> str | None:
    """What a class says of itself that no method can, or does not say; None where all is well."""
    if missing := [name for name in _ASKED if not hasattr(found, name)]:
        return f"does not say its {missing[0]!r}"
    if unwritten := sorted(found.__abstractmethods__):
        return f"has no {unwritten[0]}()"
    if not isinstance(found.name, str):
        return f"has name = {found.name!r}; expected text"
    if not isinstance(found.needs, set | frozenset):
        return f"has needs = {found.needs!r}; expected a set of names, such as {{'train'}}"
    known = list(get_args(Need))
    if unknown := sorted(map(str, found.needs - set(known))):
        return f"needs {unknown[0]!r}; {nearest(unknown[0], known)}"
    if not (inspect.isclass(found.Settings) and issubclass(found.Settings, Strict)):
        return f"has Settings = {found.Settings!r}; expected a class derived from vocabsem.Settings"
    if not isinstance(found.space, Mapping):
        return f"has space = {found.space!r}; expected setting -> vocabsem.Domain"
    for name, domain in found.space.items():
        if not isinstance(domain, Domain):
            return f"has space[{name!r}] = {domain!r}; expected a vocabsem.Domain, such as Domain(choice=(1, 2))"
        if name not in found.Settings.model_fields:
            return f"has space[{name!r}], which is not one of its Settings: {', '.join(found.Settings.model_fields)}"
    return None


def _line_of(found: type[Method]) -> str:
    try:
        return f", line {inspect.getsourcelines(found)[1]}"
    except OSError:  # a class that no `class` statement made
        return ""


@contextmanager
def naming_the_file(method: Method) -> Iterator[None]:
    """An exception in a user's own method is the user's: it is told with file and line, without our frames."""
    try:
        yield
    except Exception as error:
        if method.source_file is None or exit_code_of(error) is not None:
            raise
        place = f"{method.source_file}{line_in(error, method.source_file)}"
        raise ConfigError(f"method {method.name!r}, {place}: {type(error).__name__}: {error}") from error
