"""A user's own method: one Python file that holds one class derived from `Method`.

The file's digest is part of every key its results have, so an edited file is another method and its old results stay.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from workflows.config import CompareConfig
from workflows.errors import ConfigError
from workflows.methods.base import Method
from workflows.paths import located
from workflows.sweep_config import SweepConfig

Config = TypeVar("Config")
_SUFFIX = ".py"
_ASKED = ("name", "needs")  # what a class must say of itself


def is_own(reference: str) -> bool:
    """Whether a method is named by a file."""
    return reference.endswith(_SUFFIX)


def with_own_methods(config: Config, base: Path) -> Config:
    """A workflow file's content with the files of own methods, which are relative to `base`, as absolute paths."""
    if isinstance(config, CompareConfig):
        located = tuple(m.model_copy(update={"method": _located(m.method, base)}) for m in config.methods)
        return config.model_copy(update={"methods": located})
    if isinstance(config, SweepConfig):
        return config.model_copy(update={"method": _located(config.method, base)})
    return config


def _located(reference: str, base: Path) -> str:
    return str(located(base, reference)) if is_own(reference) else reference


def own_method(path: str) -> Method:
    """The method a file holds. Raises ConfigError where it cannot be read, run, or holds not exactly one."""
    file = Path(path)
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"method {path}: cannot be read ({error.strerror}); name a Python file") from error
    return _loaded(str(file.absolute()), digest)


@lru_cache
def _loaded(path: str, digest: str) -> Method:
    module = _imported(path, f"vocabsem_own_{digest[:16]}")
    classes = [
        found
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, Method) and found.__module__ == module.__name__
    ]
    if len(classes) != 1:
        told = ", ".join(found.__name__ for found in classes) or "none"
        raise ConfigError(f"{path}: holds {len(classes)} methods ({told}); expected one class derived from Method")
    if missing := [name for name in _ASKED if not hasattr(classes[0], name)]:
        raise ConfigError(
            f"{path}: class {classes[0].__name__} does not say its {missing[0]!r}; see docs/own-method.md"
        )
    if unwritten := sorted(classes[0].__abstractmethods__):
        raise ConfigError(f"{path}: class {classes[0].__name__} has no {unwritten[0]}(); see docs/own-method.md")
    method = classes[0]()
    method.source_file, method.source_digest = path, digest
    return method


def _imported(path: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and drift warnings look a module up by its name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path}{_line_in(error, path)}: {type(error).__name__}: {error}") from error
    return module


@contextmanager
def naming_the_file(method: Method) -> Iterator[None]:
    """An exception in a user's own method is the user's: it is told with file and line, without our frames."""
    try:
        yield
    except Exception as error:
        if method.source_file is None or hasattr(error, "exit_code"):
            raise
        place = f"{method.source_file}{_line_in(error, method.source_file)}"
        raise ConfigError(f"method {method.name!r}, {place}: {type(error).__name__}: {error}") from error


def _line_in(error: Exception, path: str) -> str:
    """The last line of that file which the error went through."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f", line {lines[-1]}" if lines else ""
