"""Steps on rows: texts, labels, and the tokens of label words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step, called
from orchestration.store.artifacts import Artifact
from orchestration.store.files import json_bytes
from workflows.config.task import prompt_template
from workflows.inputs.catalog import Task
from workflows.inputs.labels import label_numbers
from workflows.inputs.models import Model, checked_tokenizer
from workflows.inputs.row_choice import chosen_rows, digest_of
from workflows.inputs.tables import Part, Split, SplitFile, changed, kept_rows, row_hash, text_rows, unchanged_columns
from workflows.steps import ROWS_PER_SHARD
from workflows.steps.code import code_of

_LIGHT = Resources(cpus=0)  # reads a file; must not wait behind the encoder for a core


def texts_step(
    task: Task,
    split: Split,
    file: SplitFile,
    digests: dict[str, str],
    count: int,
    limit: int | None,
    rows: str | None = None,
) -> Step:
    """The prompt fields of a split's rows. Labels are no part of it, so that a changed label encodes nothing anew.

    Args:
        file: where the rows are.
        digests: of the file's columns.
        count: rows of the file.
        limit: rows that are kept at most.
        rows: digest of which rows these are, where labels have a say in that.
    """
    subject = {"task": task.config.name, "split": split}
    return Step(
        name="texts",
        label=f"texts {called(subject)}",
        version=1,
        run="workflows.steps.data:fill_texts",
        identity={
            "fields": {field: digests[column] for field, column in sorted(file.columns.items())},
            "limit": limit,
            "rows_per_shard": ROWS_PER_SHARD,
            **({"rows": rows} if rows is not None else {}),
        },
        local={**_place(file), "split": split, "names": list(task.config.words), "rows": min(count, limit or count)},
        resources=_LIGHT,
        files=(str(file.path),),
        subject=subject,
        sources=code_of(fill_texts),
    )


def fill_texts(work: StepContext) -> None:
    """Shards of row_id (place in the file), row_hash and the fields; with a limit, the rows of smallest hash."""
    from orchestration.store.arrow import table_of

    identity, local, file = work.identity, work.local, _file(work)
    by_label = "rows" in identity
    digests = {file.columns[field]: digest for field, digest in identity["fields"].items()}
    columns = unchanged_columns(file, digests, [file.label] if by_label else [])
    rows = text_rows(file, columns)
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


def labels_step(task: Task, split: Split, file: SplitFile, digests: dict[str, str]) -> Step:
    """The class number of every row."""
    subject = {"task": task.config.name, "split": split}
    return Step(
        name="labels",
        label=f"labels {called(subject)}",
        version=1,
        run="workflows.steps.data:fill_labels",
        identity={"column": digests[file.label], "values": file.values, "names": list(task.config.words)},
        local=_place(file),
        resources=_LIGHT,
        files=(str(file.path),),
        subject=subject,
        remarks="workflows.steps.data:without_validation" if split == "train" else "",
        sources=code_of(fill_labels),
    )


def fill_labels(work: StepContext) -> None:
    """One shard of row_id and label (int32), for all rows: a limit acts on texts alone."""
    import numpy as np

    from orchestration.store.arrow import table_of

    file = _file(work)
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


def verbalizer_step(model: Model, task: Task) -> Step:
    """The vocabulary rows that stand for each label."""
    return Step(
        name="verbalizer",
        label=f"verbalizer {model.name} {task.config.name}",
        version=2,
        run="workflows.steps.data:fill_verbalizer",
        identity={
            "tokenizer": model.tokenizer,
            "template": prompt_template(task.config, model.kind),
            "words": [
                [label, word] for label, word in task.config.words.items()
            ],  # a list: the order of classes counts
            "label_tokens": task.config.label_tokens,
        },
        local={"folder": str(model.folder), "vocabulary": model.kept_rows},
        resources=_LIGHT,
        files=model.paths,
        sources=code_of(fill_verbalizer),
    )


def fill_verbalizer(work: StepContext) -> None:
    """verbalizer.json: labels, their tokens, the rule, and each token as text."""
    from vocabsem_core.features.prompts import verbalize

    identity = work.identity
    tokenizer = checked_tokenizer(Path(work.local["folder"]), identity["tokenizer"])
    words, rule = dict(identity["words"]), identity["label_tokens"]
    found = verbalize(tokenizer, identity["template"], words, rule, work.local["vocabulary"])
    pieces = [[tokenizer.decode([token]) for token in tokens] for tokens in found.tokens]
    work.out.write("verbalizer.json", json_bytes({**asdict(found), "pieces": pieces}))


def _place(file: SplitFile) -> dict[str, Any]:
    return {**asdict(file), "path": str(file.path)}


def _file(work: StepContext) -> SplitFile:
    local, part = work.local, work.local["part"]
    place = Path(local["path"]), local["columns"], local["label"], local["values"]
    return SplitFile(*place, Part(**part) if part is not None else None)
