"""Steps on rows: what a model reads of them, and their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step, called
from orchestration.store.artifacts import Artifact
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.inputs.catalog import Task
from workflows.inputs.labels import label_numbers
from workflows.inputs.python_files import is_function
from workflows.inputs.row_choice import chosen_rows, digest_and_count, digest_of
from workflows.inputs.row_files import Value
from workflows.inputs.tables import (
    Part,
    Split,
    SplitFile,
    changed,
    column_digests,
    kept_rows,
    row_count,
    row_hash,
    split_file,
    text_rows,
    unchanged_columns,
)
from workflows.steps import ROWS_PER_SHARD
from workflows.steps.code import code_of

Columns = Mapping[str, Sequence[Value]]  # of a file: column -> values
_LIGHT = Resources(cpus=0)  # reads a file; must not wait behind the encoder for a core


def texts_step(task: Task, split: Split, limit: int | None, facts: FingerprintCache) -> Step:
    """The prompt fields of a split's rows. Labels are no part of it, so that a changed label encodes nothing anew."""
    return rows_step("texts", fill_texts, task, split, limit, facts)


def fill_texts(work: StepContext) -> None:
    """Shards of row_id (place in the file), row_hash and the fields; with a limit, the rows of smallest hash."""
    fill_rows(work, text_rows)


def rows_step(
    kind: str,
    fill: Callable[[StepContext], None],
    task: Task,
    split: Split,
    limit: int | None,
    facts: FingerprintCache,
) -> Step:
    """What an extractor reads of a split's rows: the fields of `columns` in the task's `source`.

    Args:
        kind: of the step.
        fill: calls `fill_rows` with what reads and checks the fields.
        limit: rows that are kept at most.
        facts: remembers digests of files.
    """
    file, names = split_file(task, split), list(task.config.words)
    digests, count = column_digests(file, facts), row_count(file, facts)
    chosen = digest_and_count(file, names, split, limit, facts)  # where labels have a say in which rows these are
    subject = {"task": task.config.name, "split": "new" if split == "test" and task.new_rows else split}
    return Step(
        name=kind,
        label=f"{kind} {called(subject)}",
        version=1,
        run=f"{fill.__module__}:{fill.__name__}",
        identity={
            "fields": {field: digests[column] for field, column in sorted(file.columns.items())},
            "limit": limit,
            "rows_per_shard": ROWS_PER_SHARD,
            **({"rows": chosen[0]} if chosen is not None else {}),
        },
        local={
            **_place(file),
            "split": split,
            "names": names,
            "rows": chosen[1] if chosen is not None else min(count, limit or count),
        },
        resources=_LIGHT,
        files=source_files(file),
        subject=subject,
        sources=code_of(fill),
    )


def fill_rows(work: StepContext, read: Callable[[SplitFile, Columns], list[dict[str, Any]]]) -> None:
    """Shards of row_id (place in the file), row_hash and the fields that `read` gives of every row of the file."""
    from orchestration.store.arrow import table_of

    identity, local = work.identity, work.local
    file = file_at(local)
    by_label = "rows" in identity
    digests = {file.columns[field]: digest for field, digest in identity["fields"].items()}
    columns = unchanged_columns(file, digests, [file.label] if by_label else [])
    rows = read(file, columns)
    if by_label:
        kept = chosen_rows(file, columns, local["names"], local["split"], identity["limit"])
        if digest_of(kept) != identity["rows"]:
            raise changed(file)
    else:
        kept = kept_rows(rows, identity["limit"])
    fields, size = sorted(identity["fields"]), identity["rows_per_shard"]
    for shard, start in enumerate(range(0, len(kept), size)):
        part = kept[start : start + size]
        shown: dict[str, Any] = {
            "row_hash": [row_hash(rows[i]) for i in part],
            **{field: [rows[i][field] for i in part] for field in fields},
        }
        work.out.write_shard(shard, table_of(part, shown))


def labels_step(task: Task, split: Split, facts: FingerprintCache) -> Step:
    """The class number of every row."""
    file, names = split_file(task, split), list(task.config.words)
    column = column_digests(file, facts)[file.label]
    subject = {"task": task.config.name, "split": split}
    return Step(
        name="labels",
        label=f"labels {called(subject)}",
        version=1,
        run="workflows.steps.data:fill_labels",
        identity={"column": column, "values": file.values, "names": names},
        local=_place(file),
        resources=_LIGHT,
        files=source_files(file),
        subject=subject,
        remarks="workflows.steps.data:without_validation" if split == "train" else "",
        sources=code_of(fill_labels),
    )


def fill_labels(work: StepContext) -> None:
    """One shard of row_id and label (int32), for all rows: a limit acts on texts alone."""
    import numpy as np

    from orchestration.store.arrow import table_of

    file = file_at(work.local)
    columns = unchanged_columns(file, {file.label: work.identity["column"]})
    numbers = label_numbers(file, columns, work.identity["names"])
    work.out.write_shard(0, table_of(range(len(numbers)), {"label": np.array(numbers, dtype=np.int32)}))


def without_validation(step: Step, artifact: Artifact) -> dict[str, str]:
    """A line for each label that has one training row in its file, and so none to validate by."""
    from orchestration.store.arrow import column_array, read_table

    columns = [column_array(read_table(path), "label") for path in artifact.shards()]
    numbers = [number for column in columns for number in column.tolist()]
    return {
        f"{step.key} {name}": f"{step.label}: label {name!r} has one training row, and so no validation row"
        for place, name in enumerate(step.identity["names"])
        if numbers.count(place) == 1
    }


def _place(file: SplitFile) -> dict[str, Any]:
    return {**asdict(file), "path": str(file.path)}


def file_at(local: Mapping[str, Any]) -> SplitFile:
    """The file that the `local` of a step names."""
    place = Path(local["path"]), local["columns"], local["label"], local["values"]
    part = Part(**local["part"]) if local["part"] is not None else None
    return SplitFile(*place, part, tuple(local["files"]))


def source_files(file: SplitFile) -> tuple[str, ...]:
    """What has to be there on every node: the table, folder or Python file."""
    return (str(file.path).partition(".py:")[0] + ".py" if is_function(str(file.path)) else str(file.path),)
