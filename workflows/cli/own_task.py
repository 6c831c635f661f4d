"""A task file and a workflow file made from a user's rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from workflows.errors import ConfigError, nearest
from workflows.inputs.labels import read_labels
from workflows.inputs.row_files import check_kind, column_names, read_columns
from workflows.inputs.tables import SplitFile

_SHARE, _SEED = 0.2, 0  # of the rows that are held out where there is no test file
_MANY_ROWS = 5_000  # a first run over more would take long
_WORKFLOW = "workflow.yaml"
# What joins the words of a label: `_`, `/`, `|`, a dot before a letter, a hyphen between words, a new capital.
_BETWEEN_WORDS = re.compile(r"[_/|\\]+|\.(?=[^\W\d])|(?<=\w)-(?=\w)|(?<=[a-z])(?=[A-Z])")


def own_files(data: Path, test: Path | None, text: str | None, label: str | None) -> tuple[dict[Path, str], list[str]]:
    """The text of each file, the task and then the workflow, and what a user should know of them.

    Args:
        data: the training rows.
        test: the test rows; None: a seeded share of the training rows.
        text: column of the texts.
        label: column of the labels.

    Raises ConfigError for a file that cannot be read, a column that it lacks, and labels that are none.
    """
    paths = [data] if test is None else [data, test]
    for option, path in zip(("--data", "--test"), paths, strict=False):
        if not path.is_file():
            raise ConfigError(f"{option} {path}: no such file")
        check_kind(path)
    if text is None or label is None:
        missing = "--text" if text is None else "--label"
        raise ConfigError(f"{missing} is missing; the columns of {data}: {', '.join(column_names(data))}")
    for path in paths:
        known = column_names(path)
        for option, column in (("--text", text), ("--label", label)):
            if column not in known:
                raise ConfigError(f"{path}: no column {column!r} for {option}; {nearest(column, known)}")
    rows = _rows_of_labels(data, label)
    _check_labels(data, label, rows)
    labels = sorted({*rows, *(_rows_of_labels(test, label) if test is not None else ())})
    name = re.sub(r"[^a-z0-9._-]+", "-", label.lower()).strip("-._")
    name = "task" if f"{name}.yaml" in (".yaml", _WORKFLOW) else name
    many = sum(rows.values()) > _MANY_ROWS
    files = {
        Path(f"{name}.yaml"): _task(name, data, test, text, label, labels),
        Path(_WORKFLOW): _workflow(name, many),
    }
    return files, list(_notes(data, test, labels, many))


def _notes(data: Path, test: Path | None, labels: Sequence[str], many: bool) -> Iterator[str]:
    if test is None:
        yield (
            f"test rows: a fifth of each label's rows in {data}, by hash of the row (`split: {_SHARE}`, "
            f"`split_seed: {_SEED}`)"
        )
    if many:
        yield "rows: at most 5,000 training and 2,000 test rows (`limit` in the workflow file)"
    if numbers := [label for label in labels if not any(map(str.isalpha, label))]:
        yield f"labels {', '.join(numbers)}: under `words`, write a word for the meaning of each"


def word_of(label: str) -> str:
    """The word proposed for a label: its own words, in lower case."""
    return " ".join(_BETWEEN_WORDS.sub(" ", label).split()).lower() or label


def _rows_of_labels(path: Path, column: str) -> dict[str, int]:
    """Label -> how many rows have it; rows without one are told by `validate`."""
    file = SplitFile(path, {}, column, None)
    found = read_labels(file, read_columns(path, [column]).values, []).wrong
    return {label: len(rows) for label, rows in found.items() if label is not None}


def _check_labels(path: Path, column: str, rows: Mapping[str, int]) -> None:
    count = sum(rows.values())
    if len(rows) < 2:
        told = f"one label, {next(iter(rows))!r}" if rows else "no label"
        raise ConfigError(f"{path}: column {column!r} has {told}; expected two or more")
    if 2 * len(rows) > count:
        raise ConfigError(
            f"{path}: column {column!r} has {len(rows):,} different values in {count:,} rows; name the column of the "
            "labels with --label"
        )


def _task(name: str, data: Path, test: Path | None, text: str, label: str, labels: Sequence[str]) -> str:
    held_out = {"split": _SHARE, "split_seed": _SEED} if test is None else {"test": str(test)}
    source = {"train": str(data), **held_out, "columns": {"text": text}, "label": label}
    template = f"{_title(text, 'Text')}: {{text}}\n{_title(label, 'Label')}:"
    parts = [
        _yaml({"name": name}),
        "source:                     # paths are relative to this file\n",
        indent(_yaml(source), "  "),
        "# The prompt, up to the position of the label word.\n",
        f"template: {json.dumps(template, ensure_ascii=False)}\n",
        "words:                      # label -> the word that represents it: one that the model would use here\n",
        indent(_yaml({label: word_of(label) for label in labels}), "  "),
    ]
    return "".join(parts)


def _workflow(name: str, many: bool) -> str:
    limit = "limit: {train: 5000, test: 2000}    # a part of the rows, by hash; leave it out to use all of them\n"
    return f"""\
# Compare six methods on the task `{name}` with the bundled model.   vocabsem run {_WORKFLOW}
workflow: compare
models: [reference]                 # bundled, tiny; or smollm2-135m, a folder, a GGUF file, a Hugging Face id
tasks: [{name}.yaml]
methods: [zero-shot, affinity-centred, semantic-prior, calibration, linear-probe, knn]
{limit if many else ""}"""


def _title(column: str, otherwise: str) -> str:
    """A column's name as words of the prompt, without what a template would take for a field."""
    return " ".join(re.findall(r"[^\W_]+", column)).capitalize() or otherwise


def _yaml(fields: Mapping[str, Any]) -> str:
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=10**6)
