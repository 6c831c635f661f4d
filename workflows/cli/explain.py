"""What a method, a step, a term or a field of a YAML file is, told in the terminal from the code's own words."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workflows.cli.terms import TERMS
from workflows.config.compare import ModelConfig
from workflows.config.fields import default_of, kind_of, meaning_of, section_of
from workflows.config.space import Domain
from workflows.config.task import TaskConfig
from workflows.errors import ConfigError, nearest
from workflows.inputs.paths import named
from workflows.methods.base import Method
from workflows.methods.custom import is_own
from workflows.methods.registry import METHODS, method_named
from workflows.registry import WORKFLOWS
from workflows.steps.registry import STEPS

_WIDTH = 100
_SENTENCE_END = re.compile(r"(?<=\.)\s")
_FILES: dict[str, type[BaseModel]] = {
    **{f"{name} workflows": config for name, config in WORKFLOWS.items()},
    "task files": TaskConfig,
    "model files": ModelConfig,
    "entries of `space`": Domain,
}


@dataclass(frozen=True)
class Topic:
    """One thing that can be explained.

    Attributes:
        where: for a field the files it stands in, for a setting the method, else "".
        lines: what there is to say, a paragraph each.
    """

    kind: Literal["method", "step", "term", "field", "setting"]
    name: str
    where: str
    lines: list[str]


def topics() -> list[Topic]:
    """All that can be explained: methods, steps, terms, fields of YAML files, settings of methods."""
    fields: dict[tuple[str, str], list[str]] = {}
    for where, config in _FILES.items():
        for path, field in _fields(config):
            fields.setdefault((path, _told(field)), []).append(where)
    return [
        *(_method(method) for method in METHODS.values()),
        *(Topic("step", name, "", [_step(*pair) for pair in pairs]) for name, pairs in STEPS.items()),
        *(Topic("term", name, "", [told]) for name, told in TERMS.items()),
        *(Topic("field", path, ", ".join(where), [told]) for (path, told), where in fields.items()),
        *(setting for method in METHODS.values() for setting in _settings(method)),
    ]


def explain(name: str) -> list[Topic]:
    """What goes by a name; a field also by the last of its parts. Raises ConfigError, with the nearest name."""
    if is_own(name):
        return [_method(method_named(named(name, "method")))]
    known, wanted = topics(), _plain(name)
    found = [one for one in known if _plain(one.name) == wanted]
    found += [one for one in known if one not in found and _plain(one.name).endswith(f".{wanted}")]
    if not found:
        names = [name for one in known for name in (one.name, one.name.rpartition(".")[2])]
        hint = nearest(name, sorted(set(names)), "`vocabsem explain` lists all names")
        raise ConfigError(f"unknown name {name!r}; {hint}")
    return found


def document(found: Sequence[Topic]) -> dict[str, Any]:
    """What `explain --json` prints."""
    return {"topics": [asdict(one) for one in found]}


def text(found: Sequence[Topic]) -> str:
    """Topics one after another."""
    heads = [f"{one.name}: a {one.kind}{f' of {one.where}' if one.where else ''}" for one in found]
    return "\n\n".join("\n".join([head, *map(_wrapped, one.lines)]) for head, one in zip(heads, found, strict=True))


def contents() -> str:
    """The names of all topics but settings, which stand with their methods."""
    names: dict[str, dict[str, None]] = {}  # in their order, once
    for one in topics():
        names.setdefault(one.kind, {})[one.name] = None
    lists = [f"{kind}s:\n{_wrapped(', '.join(found))}" for kind, found in names.items() if kind != "setting"]
    return "\n".join([*lists, "Explain one: vocabsem explain NAME"])


def _wrapped(line: str) -> str:
    return textwrap.fill(line, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _method(method: Method) -> Topic:
    own, module = type(method), sys.modules[type(method).__module__]
    given = ["prompts"] if method.input_kind == "prompts" else []
    reads = ", ".join([*given, *sorted(method.needs)]) or "only the states"
    told = filter(None, [_first(own.__doc__), *inspect.cleandoc(module.__doc__ or "").split("\n\n")])
    code = method.source_file or f"{own.__module__} (version {method.version})"
    settings = [f"{one.name.rpartition('.')[2]}: {one.lines[0]}" for one in _settings(method)]
    lines = [*told, f"Reads: {reads}.", f"Code: {code}.", *(settings or ["It has no settings."])]
    return Topic("method", method.name, "", lines)


def _settings(method: Method) -> Iterator[Topic]:
    for name, field in method.Settings.model_fields.items():
        searched = f"; searched in {method.space[name]}" if name in method.space else ""
        yield Topic("setting", f"{method.name}.{name}", method.name, [f"{_told(field)}{searched}."])


def _step(made: Callable[..., Any], filled: Callable[..., Any]) -> str:
    (stored, *_) = _SENTENCE_END.split(_first(filled.__doc__))
    return f"{_first(made.__doc__)} Stored: {stored}"


def _fields(config: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in config.model_fields.items():
        yield before + name, field
        if (inner := section_of(field)) is not None:
            yield from _fields(inner, f"{before}{name}.")


def _told(field: FieldInfo) -> str:
    default = default_of(field)
    told = default if default == "required" else f"default {default}"
    return f"{meaning_of(field)} ({kind_of(field.annotation)}; {told})"


def _first(doc: str | None) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", " ").replace("_", " ")
