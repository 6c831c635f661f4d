"""Writes the reference pages of docs/ from the code: `python -m workflows.reference docs`. A test holds them to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from workflows import capacity
from workflows.config import CompareConfig, ModelConfig, TaskConfig
from workflows.methods import METHODS
from workflows.methods.base import Method
from workflows.pretrain_config import PretrainConfig
from workflows.space import Domain
from workflows.sweep_config import SweepConfig


def pages() -> dict[str, str]:
    """File name -> text of every reference page."""
    return {"yaml.md": _yaml(), "commands.md": _commands(), "capacity.md": capacity.page()}


def _yaml() -> str:
    parts = [
        "# YAML reference",
        "Made from the code by `python -m workflows.reference docs`. Unknown fields, duplicate keys and values of a "
        "wrong type are errors that name file and line.",
        "## A workflow file: `workflow: compare`",
        *_model(CompareConfig),
        "## A workflow file: `workflow: pretrain`",
        *_model(PretrainConfig),
        "## A workflow file: `workflow: sweep`",
        *_model(SweepConfig),
        "### Entries of `space`",
        f"{(Domain.__doc__ or '').strip()} For example `learning_rate: {{log_uniform: [1.0e-4, 1.0e-2]}}`.",
        *_model(Domain),
        "## A task file",
        *_model(TaskConfig),
        "## A model file",
        *_model(ModelConfig),
        "## Settings of methods",
        "Given under `settings` of an entry of `methods`. A setting you give is fixed; the others are searched where a "
        "range stands.",
        *(part for method in METHODS.values() for part in _method(method)),
    ]
    return "\n\n".join(parts) + "\n"


def _model(model: type[BaseModel]) -> list[str]:
    """A table of a model's fields, then one for each section inside it."""
    rows = ["| field | value | default | meaning |", "| --- | --- | --- | --- |"]
    sections: list[str] = []
    for name, field in model.model_fields.items():
        inner = _section(field)
        if inner is not None:
            sections += [f"### `{name}`", (inner.__doc__ or "").strip(), *_model(inner)]
        rows.append(f"| `{name}` | {_kind(field.annotation)} | {_default(field)} | {_meaning(field, inner)} |")
    return ["\n".join(rows), *sections]


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [field.annotation, *get_args(field.annotation)]
    found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return found[0] if found else None


def _kind(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if annotation is type(None):
        return "none"
    names = {
        str: "text",
        bool: "`true` or `false`",
        int: "whole number",
        float: "number",
        Path: "path",
        Any: "any",
        ...: "",
    }
    if annotation in names:
        return names[annotation]
    inner = [_kind(argument) for argument in get_args(annotation) if argument is not type(None)]
    origin = get_origin(annotation)
    if origin is tuple:
        return f"list of {inner[0]}"
    if origin is dict:
        return f"mapping of {inner[0]} to {inner[1]}"
    if origin is not None and getattr(origin, "__name__", "") == "Literal":
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return inner[0]
    return " or ".join(dict.fromkeys(inner))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        return "below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"  # as YAML writes it
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _meaning(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    return (
        (field.description or (inner.__doc__ if inner else "") or "which workflow this is").strip().replace("|", "\\|")
    )


def _method(method: Method) -> list[str]:
    fields = method.Settings.model_fields
    if not fields:
        return [f"### `{method.name}`", "No settings."]
    rows = ["| setting | value | default | searched in | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in fields.items():
        domain = method.space.get(name)
        searched = "" if domain is None else str(domain)
        rows.append(
            f"| `{name}` | {_kind(field.annotation)} | {_default(field)} | {searched} | {_meaning(field, None)} |"
        )
    return [f"### `{method.name}`", "\n".join(rows)]


def _commands() -> str:
    import typer

    from workflows.cli import app

    parts = [
        "# Command reference",
        "Made from the code by `python -m workflows.reference docs`. Exit status: 0 done, 1 a step failed or damage "
        "was found, 2 bad input. With `--json`, standard output holds one JSON document and nothing else.",
    ]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        positional = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        words = [
            (p.metavar or p.name.upper()) if p.required else f"[{p.metavar or p.name.upper()}]" for p in positional
        ]
        parts += [f"## `{' '.join(['vocabsem', name, *words])}`", " ".join((command.help or "").split())]
        rows = [f"| `{p.opts[0]}` | {' '.join((p.help or '').split())} |" for p in options]
        if rows:
            parts.append("\n".join(["| option | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the pages to the folder named on the command line."""
    folder = Path(sys.argv[1])
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
