"""Functions and classes in a user's own Python file; what goes wrong in it is told with its line."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from orchestration.errors import exit_code_of
from workflows.errors import ConfigError, nearest
from workflows.inputs.paths import located

_REFERENCE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class OwnFunction:
    """A function of a user's file.

    Attributes:
        file: absolute path.
        name: of the function.
        digest: of the file.
    """

    file: str
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}"

    @property
    def title(self) -> str:
        """Its name in results."""
        return f"{Path(self.file).stem}-{self.name}"

    @property
    def files(self) -> tuple[str, ...]:
        """What a node must have to call it."""
        return (self.file,)

    def call(self) -> Any:
        """What it returns. Raises ConfigError, with the line, where it raises or is not there."""
        module = _imported(self.file, self.digest)
        function = getattr(module, self.name, None)
        if not callable(function):
            own = [name for name, one in vars(module).items() if callable(one) and _is_of(one, module)]
            raise ConfigError(f"{self.file}: no function {self.name!r}; {nearest(self.name, own)}")
        with naming_line(self.file, f"{self.name}()"):
            return function()


def is_function(reference: str) -> bool:
    """Whether something is named as a function of a Python file: path/to/file.py:function."""
    return _REFERENCE.fullmatch(reference) is not None


def find_function(reference: str, base: Path) -> OwnFunction:
    """A function by `file.py:function`, relative to a folder. Raises ConfigError where the file cannot be read."""
    found = _REFERENCE.fullmatch(reference)
    assert found is not None, "asked with `is_function` before"
    file = located(base, found[1])
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); name a Python file") from error
    return OwnFunction(str(file), found[2], digest)


@lru_cache
def _imported(file: str, digest: str) -> ModuleType:
    return imported(file, f"vocabsem_own_{hashlib.sha256(f'{file} {digest}'.encode()).hexdigest()[:16]}")


def imported(path: str, name: str) -> ModuleType:
    """A Python file as a module of a name. Raises ConfigError, with the line, where it cannot be run."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and drift warnings look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path}{line_in(error, path)}: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def naming_line(path: str, what: str) -> Iterator[None]:
    """An exception in a user's file is the user's: it is told with file and line, without our frames."""
    try:
        yield
    except Exception as error:
        if exit_code_of(error) is not None:
            raise
        raise ConfigError(f"{path}{line_in(error, path)}: {what}: {type(error).__name__}: {error}") from error


def line_in(error: Exception, path: str) -> str:
    """The last line of that file which the error went through."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f", line {lines[-1]}" if lines else ""


def line_of(function: Callable[..., Any]) -> str:
    """Where a function or class begins."""
    code = getattr(function, "__code__", None)
    return f", line {code.co_firstlineno}" if code is not None else ""


def _is_of(found: Any, module: ModuleType) -> bool:
    return getattr(found, "__module__", None) == module.__name__
