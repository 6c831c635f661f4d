"""The command `vocabsem init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflows.cli.options import path_given
from workflows.errors import ConfigError, nearest
from workflows.inputs.catalog import find_model, template_names, template_text

Template = Annotated[
    str | None,
    typer.Argument(
        metavar="TEMPLATE",
        help="A workflow file that comes with VocabSem: quickstart, bundled, sweep or layers.",
        autocompletion=lambda incomplete: [name for name in template_names() if name.startswith(incomplete)],
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="FILE", help="Your rows: .csv, .jsonl or .parquet.", callback=path_given),
]
Test = Annotated[
    Path | None,
    typer.Option(
        "--test",
        metavar="FILE",
        help="Your test rows, with the same columns [default: a fifth of --data].",
        callback=path_given,
    ),
]
Text = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="The column with the texts.")]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="The column with the labels.")]


def init(
    template: Template = None, data: Data = None, text: Text = None, label: Label = None, test: Test = None
) -> None:
    """Write a workflow file to the current folder: a template, or a task and a workflow for your own rows."""
    from workflows.cli.own_task import own_files
    from workflows.cli.validate import findings_text, validate

    told: list[str] = []
    if template is not None and data is None:
        if template not in template_names():
            raise ConfigError(f"no template {template!r}; {nearest(template, template_names())}")
        files = {Path(f"{template}.yaml"): template_text(template)}
        told = _missing_models(template_text(template))
    elif data is not None and template is None:
        files, told = own_files(data, test, text, label)
    else:
        raise ConfigError(
            f"give the name of a template ({', '.join(template_names())}), or your rows: "
            "--data FILE --text COLUMN --label COLUMN"
        )
    _write(files)
    *_, workflow = files
    for line in (*(f"wrote {path}" for path in files), *told):
        print(line)
    if data is not None:
        print(findings_text(workflow, validate(workflow, None)))
    print(f"next:\n  vocabsem validate {workflow}\n  vocabsem run {workflow}")


def _missing_models(text: str) -> list[str]:
    """What to install for a template's models, or what to do without."""
    import yaml

    from workflows.inputs.gguf import gguf_file

    told = []
    for entry in (find_model(name, Path()) for name in yaml.safe_load(text).get("models", [])):
        if entry.config.package is not None:
            try:
                gguf_file(entry)
            except ConfigError as error:
                told.append(f"{error}; or, with nothing to install: `vocabsem init bundled`")
    return told


def _write(files: dict[Path, str]) -> None:
    """All of them or none. Raises ConfigError for a file that is there already."""
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} already exists; move it, or use another folder")
    for path, text in files.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
