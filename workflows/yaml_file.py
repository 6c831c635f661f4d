"""YAML files read strictly: no duplicate keys, no unknown fields, and errors that name the line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from workflows.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)
_Place = tuple[str | int, ...]


def read_yaml(path: Path, model: type[Model]) -> Model:
    """The document of a file as a checked model.

    Raises ConfigError with file, line, field, value and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: a folder; expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = _lines(node, path) if node is not None else {}
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError:
        raise ConfigError(f"{path}: an alias contains itself; write the value out") from None
    except ValueError as error:  # a date that is none
        raise ConfigError(f"{path}: a value cannot be read: {error}; put quotes around it") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: holds {type(document).__name__}, expected fields such as `workflow: compare`")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = [problem for problem in error.errors() if not _follows(problem, error.errors())]
        raise ConfigError("\n".join(_phrase(path, lines, model, problem) for problem in problems)) from error


def _follows(problem: Any, problems: Sequence[Any]) -> bool:
    """A list is `too_short` also when its only entry is wrong: then the entry's own problem is enough."""
    place = problem["loc"]
    return problem["type"] == "too_short" and any(
        other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in problems
    )


def _lines(node: yaml.Node, path: Path, place: _Place = ()) -> dict[_Place, int]:
    """Place in the document -> line, from 1. Raises ConfigError for a key that stands twice."""
    lines = {place: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise ConfigError(
                    f"{path}:{line}: a field's name is not a word; put quotes around text that holds {{ or ["
                )
            inner = (*place, key.value)
            if inner in lines:
                raise ConfigError(
                    f"{path}:{key.start_mark.line + 1}: {key.value!r} stands twice (first in "
                    f"line {lines[inner]}); keep one"
                )
            lines |= {**_lines(value, path, inner), inner: key.start_mark.line + 1}
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines |= _lines(value, path, (*place, index))
    return lines


def _phrase(path: Path, lines: dict[_Place, int], model: type[BaseModel], problem: Any) -> str:
    place: _Place = problem["loc"]
    line = next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), 1)
    field = ".".join(map(str, place)) or "the file"
    if problem["type"] == "extra_forbidden":
        known = _fields(model, place[:-1])
        return f"{path}:{line}: unknown field {field!r}; {nearest(str(place[-1]), known)}"
    if problem["type"] == "missing":
        return f"{path}:{line}: field {field!r} is missing; add it"
    return f"{path}:{line}: {field}: found {problem['input']!r}; {problem['msg'].removeprefix('Value error, ')}"


def _fields(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The field names of the model at a place inside `model`."""
    for name in place:
        if isinstance(name, str) and name in model.model_fields:
            annotation = model.model_fields[name].annotation
            inner = [
                kind
                for kind in (annotation, *get_args(annotation))
                if isinstance(kind, type) and issubclass(kind, BaseModel)
            ]
            if inner:
                model = inner[0]
    return [field.alias or name for name, field in model.model_fields.items()]
