"""YAML files read strictly: no duplicate keys, no unknown fields, and errors that name the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from workflows.errors import ConfigError, Place, YamlError, nearest

Model = TypeVar("Model", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Keys are the text that is written: `yes`, `true`, `0` and `1.0` as keys are words like any other."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}


def read_yaml(path: Path, model: type[Model], problems: list[str] | None = None) -> Model:
    """The document of a file as a checked model.

    Where text is expected, a number or a truth value is the text that is written. With `problems`, mistakes are added
    to it and the fields that have them are left out, where what is left is a whole document. Raises YamlError with
    file, line, field, value and what was expected.
    """
    return _checked(path, model, *_read(path), problems)


def read_workflow(path: Path, kinds: Mapping[str, type[Model]], problems: list[str] | None = None) -> Model:
    """The document of a workflow file as the model of its kind, which its field `workflow` names.

    `problems` are as in `read_yaml`. Raises YamlError.
    """
    return _workflow(path, kinds, *_read(path), problems)


def check_workflow(fields: dict[str, Any], kinds: Mapping[str, type[Model]]) -> Model:
    """The fields of a workflow, given in Python, as the model of its kind. Raises YamlError, without file and line."""
    return _workflow(None, kinds, fields, {}, None)


def _workflow(
    path: Path | None,
    kinds: Mapping[str, type[Model]],
    document: dict[str, Any],
    nodes: dict[Place, _Written],
    problems: list[str] | None,
) -> Model:
    kind = str(document.get("workflow", ""))
    if kind not in kinds:
        told = f"workflow: found {kind!r}" if kind else "field 'workflow' is missing; add it"
        raise YamlError(f"{_at(path, ('workflow',), _lines_of(nodes))}{told}; {nearest(kind, list(kinds))}")
    return _checked(path, kinds[kind], document, nodes, problems)


def _read(path: Path) -> tuple[dict[str, Any], dict[Place, _Written]]:
    """The fields of a file, and how each place is written."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise YamlError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise YamlError(f"{path}: is a folder; expected a YAML file") from None
    except OSError as error:
        raise YamlError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from None
    except UnicodeDecodeError as error:
        raise YamlError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        nodes = _written(node, path) if node is not None else {}
        document = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise YamlError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError:
        raise YamlError(f"{path}: an alias contains itself; write the value in full") from None
    except ValueError as error:  # a date that is none
        raise YamlError(f"{path}: a value cannot be read: {error}; put quotes around it") from error
    if not isinstance(document, dict):
        raise YamlError(f"{path}: contains {type(document).__name__}, expected fields such as `workflow: compare`")
    return document, nodes


def _checked(
    path: Path | None, model: type[Model], document: Any, nodes: dict[Place, _Written], problems: list[str] | None
) -> Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = error.errors()
        texts = {
            problem["loc"]: nodes[problem["loc"]].text
            for problem in found
            if problem["type"] == "string_type" and problem["input"] is not None and _is_scalar(nodes, problem["loc"])
        }
        if texts:
            return _checked(path, model, _replaced(document, texts), nodes, problems)
        told = [_phrase(path, _lines_of(nodes), model, problem) for problem in found if not _follows(problem, found)]
        rest = _replaced(document, {problem["loc"]: None for problem in found if problem["type"] != "missing"})
        if problems is None or rest == document:
            raise YamlError("\n".join(told)) from error
        try:
            kept = model.model_validate(rest)
        except ValidationError:
            raise YamlError("\n".join(told)) from error
        problems.extend(told)
        return kept


def _is_scalar(nodes: Mapping[Place, _Written], place: Place) -> bool:
    return place in nodes and nodes[place].text is not None


def _replaced(document: Any, values: Mapping[Place, str | None], place: Place = ()) -> Any:
    """A document with other values at some places; None takes what is there out."""
    if isinstance(document, dict):
        items = [(key, value, (*place, key)) for key, value in document.items()]
        kept = [(key, value, at) for key, value, at in items if values.get(at, "") is not None]
        return {key: values.get(at) or _replaced(value, values, at) for key, value, at in kept}
    if isinstance(document, list):
        entries = [(value, (*place, index)) for index, value in enumerate(document)]
        left = [(value, at) for value, at in entries if values.get(at, "") is not None]
        return [values.get(at) or _replaced(value, values, at) for value, at in left]
    return document


@contextmanager
def naming_lines(path: Path | None) -> Iterator[None]:
    """A ConfigError about a field of this file, which could be read, gets the file's name and the line.

    Of fields that were given in Python, without a file, it gets the field's name.
    """
    try:
        yield
    except ConfigError as error:
        if not error.place:
            raise
        if path is None:
            field = ".".join(map(str, error.place))
            raise YamlError("\n".join(f"{field}: {told}" for told in str(error).splitlines())) from error
        document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        line = _line_of(error.place, _lines_of(_written(document, path)) if document is not None else {})
        raise YamlError("\n".join(f"{path}:{line}: {told}" for told in str(error).splitlines())) from error


def _at(path: Path | None, place: Place, lines: dict[Place, int]) -> str:
    """What a message about a place in a file begins with; nothing where there is no file."""
    return f"{path}:{_line_of(place, lines)}: " if path is not None else ""


def _line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of a place, or of the innermost field around it that is written out."""
    return next((lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines), 1)


def _follows(problem: Any, problems: Sequence[Any]) -> bool:
    """A list is `too_short` also when its only entry is wrong: then the entry's own problem is enough."""
    place = problem["loc"]
    return problem["type"] == "too_short" and any(
        other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in problems
    )


@dataclass(frozen=True)
class _Written:
    """How a value is written: in which line, and a scalar's text."""

    line: int
    text: str | None


def _lines_of(nodes: Mapping[Place, _Written]) -> dict[Place, int]:
    return {place: written.line for place, written in nodes.items()}


def _written(node: yaml.Node, path: Path, place: Place = ()) -> dict[Place, _Written]:
    """Place in the document -> how it is written. Raises YamlError for a key that is listed twice."""
    text = node.value if isinstance(node, yaml.ScalarNode) else None
    found = {place: _Written(node.start_mark.line + 1, text)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                raise YamlError(f"{path}:{line}: a field name is not a word; put quotes around text that holds {{ or [")
            inner = (*place, key.value)
            if inner in found:
                raise YamlError(
                    f"{path}:{key.start_mark.line + 1}: {key.value!r} is listed twice (first in "
                    f"line {found[inner].line}); keep one"
                )
            found |= _written(value, path, inner)
            found[inner] = replace(found[inner], line=key.start_mark.line + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found |= _written(value, path, (*place, index))
    return found


def _phrase(path: Path | None, lines: dict[Place, int], model: type[BaseModel], problem: Any) -> str:
    place: Place = problem["loc"]
    at = _at(path, place, lines)
    field = ".".join(map(str, place)) or "the file"
    if problem["type"] == "extra_forbidden":
        known = _fields(model, place[:-1])
        return f"{at}unknown field {field!r}; {nearest(str(place[-1]), known)}"
    if problem["type"] == "missing":
        return f"{at}field {field!r} is missing; add it"
    if problem["type"] == "value_error" and isinstance(
        problem["input"], dict
    ):  # a rule between fields: its message begins with the name of one
        told = problem["msg"].removeprefix("Value error, ")
        at = _at(path, (*place, *told.split()[0].split(".")), lines)
        return f"{at}{'.'.join(map(str, (*place, told)))}"
    return f"{at}{field}: found {problem['input']!r}; {problem['msg'].removeprefix('Value error, ')}"


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
