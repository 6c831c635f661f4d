"""Writes the reference pages of docs/ from the code: `python -m tools.reference docs`. A test holds them to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tools import capacity
from workflows.config.compare import ModelConfig
from workflows.config.fields import default_of, kind_of, meaning_of, section_of
from workflows.config.space import Domain
from workflows.config.task import TaskConfig
from workflows.methods.base import Method
from workflows.methods.registry import METHODS
from workflows.registry import WORKFLOWS


def pages() -> dict[str, str]:
    """File name -> text of every reference page."""
    return {"yaml.md": _yaml(), "commands.md": _commands(), "capacity.md": capacity.page()}


def _yaml() -> str:
    parts = [
        "# YAML reference",
        "Made from the code by `python -m tools.reference docs`. Unknown fields, duplicate keys and values of a "
        "wrong type are errors that name file and line.",
        *(part for name, config in WORKFLOWS.items() for part in _workflow(name, config)),
        "### Entries of `space`",
        f"{(Domain.__doc__ or '').strip()} For example `learning_rate: {{log_uniform: [1.0e-4, 1.0e-2]}}`.",
        *_model(Domain),
        "## A task file",
        *_model(TaskConfig),
        "## A model file",
        *_model(ModelConfig),
        "## Settings of methods",
        "Given under `settings` of an entry of `methods`. A setting given there is fixed; the others are searched if a "
        "range is listed.",
        *(part for method in METHODS.values() for part in _method(method)),
    ]
    return "\n\n".join(parts) + "\n"


def _workflow(name: str, config: type[BaseModel]) -> list[str]:
    return [f"## A workflow file: `workflow: {name}`", *_model(config)]


def _model(model: type[BaseModel]) -> list[str]:
    """A table of a model's fields, then one for each section inside it."""
    rows = ["| field | value | default | meaning |", "| --- | --- | --- | --- |"]
    sections: list[str] = []
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            sections += [f"### `{name}`", (inner.__doc__ or "").strip(), *_model(inner)]
        rows.append(f"| `{name}` | {kind_of(field.annotation)} | {default_of(field)} | {_cell(field)} |")
    return ["\n".join(rows), *sections]


def _cell(field: FieldInfo) -> str:
    return meaning_of(field).replace("|", "\\|")


def _method(method: Method) -> list[str]:
    fields = method.Settings.model_fields
    if not fields:
        return [f"### `{method.name}`", "No settings."]
    rows = ["| setting | value | default | searched in | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in fields.items():
        domain = method.space.get(name)
        searched = "" if domain is None else str(domain)
        rows.append(f"| `{name}` | {kind_of(field.annotation)} | {default_of(field)} | {searched} | {_cell(field)} |")
    return [f"### `{method.name}`", "\n".join(rows)]


def _commands() -> str:
    import typer

    from workflows.cli.app import app

    parts = [
        "# Command reference",
        "Made from the code by `python -m tools.reference docs`. Exit status: 0 done, 1 a step failed or damage "
        "was found, 2 bad input. With `--json`, standard output holds one JSON document and nothing else.",
    ]
    group = typer.main.get_command(app)
    parts += ["## Options before a command", *_options(group.params)]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        positional = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        words = [
            (p.metavar or p.name.upper()) if p.required else f"[{p.metavar or p.name.upper()}]" for p in positional
        ]
        parts += [f"## `{' '.join(['vocabsem', name, *words])}`", " ".join((command.help or "").split())]
        parts += _options(command.params)
    return "\n\n".join(parts) + "\n"


def _options(parameters: list[Any]) -> list[str]:
    """A table of the options among a command's parameters, where there are any."""
    rows = [
        f"| `{p.opts[0]}` | {' '.join((p.help or '').split())} |"
        for p in parameters
        if p.param_type_name == "option" and not p.opts[0].endswith("-completion")
    ]
    return ["\n".join(["| option | meaning |", "| --- | --- |", *rows])] if rows else []


def main() -> None:
    """Write the pages to the folder named on the command line."""
    folder = Path(sys.argv[1])
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
