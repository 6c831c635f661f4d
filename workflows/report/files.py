"""Where reports are written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from orchestration.runs.record import RunRecord
from orchestration.store import files
from orchestration.store.artifacts import Store
from workflows.errors import ConfigError
from workflows.report.contents import contents_of, read_contents
from workflows.report.page import page
from workflows.report.plain import latex, markdown
from workflows.results.model import Found

FORMS = {"html": page, "markdown": markdown, "latex": latex}
HTML, MARKDOWN = "report.html", "report.md"  # in the record of a run


def write_report(record: RunRecord, store: Store, form: str, place: Path) -> None:
    """Write one form of a run's report, whole or not at all. Raises ConfigError where that is not possible."""
    text = FORMS[form](read_contents(record, store))
    write_whole(text, place)


def write_reports(record: RunRecord, store: Store, results: Sequence[Found]) -> None:
    """The two that every run leaves in its record."""
    contents = contents_of(record, store, results)
    for form, name in (("html", HTML), ("markdown", MARKDOWN)):
        write_whole(FORMS[form](contents), record.folder / name)


def write_whole(text: str, place: Path) -> None:
    """Write a file, whole or not at all. Raises ConfigError where that is not possible."""
    if not place.parent.is_dir():
        raise ConfigError(f"{place}: no folder {place.parent}; make it, or name another file")
    try:
        staged = files.stage(place.parent, place.name, lambda path: path.write_text(text, encoding="utf-8"))
        os.replace(staged, place)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror}); name another file") from error
