"""The command `vocabsem lens`: what every layer of a model says of a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workflows.cli.options import AsJson, DataDir, StorePlace, open_store, path_given, read_store
from workflows.errors import ConfigError

_MODEL = "reference"


def lens(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="The text to read.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="A file with a text on each line.", callback=path_given),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Catalog name, folder, model YAML file, or Hugging Face id [default: reference]."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="Put the text in the template of this task, and compare its labels."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="RUN", help="A layer study, by its id or `latest`: adds its calibration and training rows."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one HTML page with heat maps.", callback=path_given),
    ] = None,
    store: StorePlace = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what each layer of a model says at each position of a text, in words of its vocabulary and of a task."""
    texts = _texts(text, file)
    if html is not None and not html.parent.is_dir():
        raise ConfigError(f"--html {html}: no folder {html.parent}; make it, or name another file")
    found = _found(texts, model, task, run, store, data_dir)
    if html is not None:
        from workflows.lens.page import page
        from workflows.report.files import write_whole

        write_whole(page(found), html)
        print(f"written to {html}", file=sys.stderr)
    if as_json:
        print(json.dumps({"texts": found}))
    elif html is None:
        _show(found)


def _texts(text: str | None, file: Path | None) -> list[str]:
    if (text is None) == (file is None):
        raise ConfigError('give a text or a file: vocabsem lens "The price of oil", or vocabsem lens --file FILE')
    if file is None:
        found = [text or ""]
    else:
        try:
            found = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            told = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"--file {file}: cannot be read ({told})") from error
    if not any(one.strip() for one in found):
        raise ConfigError("there is no text; expected a word or more")
    return found


def _found(
    texts: list[str], model: str | None, task: str | None, run: str | None, store: str | None, data_dir: Path | None
) -> list[Any]:
    """Each text as a document."""
    from orchestration.store.fingerprint_cache import FingerprintCache
    from workflows.inputs.catalog import find_task
    from workflows.lens.reader import Reader

    chosen, reference, base = None, model or _MODEL, Path.cwd()
    if run is not None:
        from orchestration.runs.lookup import find_run
        from workflows.lens.run import choose

        opened = read_store(store)
        chosen = choose(find_run(run, opened), opened, model, task)
        reference, task, base, data_dir = chosen.reference, chosen.task, chosen.base, chosen.data_dir
    else:
        opened = open_store(store)
    asked = find_task(task, base, data_dir) if task is not None else None
    reader = Reader(reference, base, asked, FingerprintCache(opened.root / "facts.json"))
    named = asked.config.name if asked is not None else None
    return [reader.document(reader.read(one), named, chosen) for one in texts]


def _show(found: list[Any]) -> None:
    from rich.console import Console

    from workflows.lens.terminal import show

    console = Console()
    for one in found:
        show(one, console)
