"""The command `vocabsem report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflows.cli.options import SomeReport, StorePlace, path_given, read_store
from workflows.errors import ConfigError


def report(
    run: SomeReport = "latest",
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page to this file.", callback=path_given)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables as Markdown.", callback=path_given)
    ] = None,
    latex: Annotated[
        Path | None, typer.Option("--latex", help="Write the table of scores as LaTeX.", callback=path_given)
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    store: StorePlace = None,
) -> None:
    """Write the report of a comparison as one HTML page that works offline [default: in the run's record]."""
    from orchestration.runs.lookup import find_run
    from workflows.registry import kind_of_run
    from workflows.report.files import HTML

    opened = read_store(store)
    record = find_run(run, opened)
    kind = kind_of_run(record)
    if kind.report is None:
        raise ConfigError(f"run {record.run_id} is a {kind.name}, which has no report. See `vocabsem show`.")
    asked = {form: path for form, path in (("html", html), ("markdown", markdown), ("latex", latex)) if path}
    if show and asked and html is None:
        raise ConfigError("--open opens the HTML page: add --html FILE, or leave out the other files")
    if not asked:
        asked = {"html": record.folder / HTML}
    for form, path in asked.items():
        kind.report(record, opened, form, path)
        print(path)
    record.push()
    if show:
        typer.launch(str(asked["html"]))
