"""Steps on rows: texts, labels, and the tokens of label words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestration.execution.work import Work
from orchestration.graph import Resources, Step
from orchestration.store.files import json_bytes
from workflows.config.task import prompt_template
from workflows.inputs.catalog import Task
from workflows.inputs.labels import label_numbers
from workflows.inputs.models import Model, checked_tokenizer
from workflows.inputs.row_choice import chosen_rows, digest_of
from workflows.inputs.tables import Part, Split, SplitFile, changed, kept_rows, row_hash, text_rows, unchanged_columns
from workflows.steps import ROWS_PER_SHARD

_LIGHT = Resources(cpus=0)  # reads a file; must not wait behind the encoder for a core
_SOURCES = (
    "workflows.inputs.row_files",
    "workflows.inputs.tables",
    "workflows.inputs.labels",
    "workflows.inputs.row_choice",
)


def texts_step(
    task: Task, split: Split, file: SplitFile, digests: dict[str, str], limit: int | None, rows: str | None = None
) -> Step:
    """The prompt fields of a split's rows. Labels are no part of it, so that a changed label encodes nothing anew.

    `rows` is the digest of which rows these are, where labels have a say in that.
    """
    return Step(
        name="texts",
        label=f"texts {task.config.name} {split}",
        version=1,
        run="workflows.steps.data:fill_texts",
        identity={
            "fields": {field: digests[column] for field, column in sorted(file.columns.items())},
            "limit": limit,
            "rows_per_shard": ROWS_PER_SHARD,
            **({"rows": rows} if rows is not None else {}),
        },
        local={**_place(file), "split": split, "names": list(task.config.words)},
        resources=_LIGHT,
        sources=_SOURCES,
    )


def fill_texts(work: Work) -> None:
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
    return Step(
        name="labels",
        label=f"labels {task.config.name} {split}",
        version=1,
        run="workflows.steps.data:fill_labels",
        identity={"column": digests[file.label], "values": file.values, "names": list(task.config.words)},
        local=_place(file),
        resources=_LIGHT,
        sources=_SOURCES,
    )


def fill_labels(work: Work) -> None:
    """One shard of row_id and label (int32), for all rows: a limit acts on texts alone."""
    import numpy as np

    from orchestration.store.arrow import table_of

    file = _file(work)
    columns = unchanged_columns(file, {file.label: work.identity["column"]})
    numbers = label_numbers(file, columns, work.identity["names"])
    work.out.write_shard(0, table_of(range(len(numbers)), {"label": np.array(numbers, dtype=np.int32)}))


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
        sources=("vocabsem_core.features.prompts",),
    )


def fill_verbalizer(work: Work) -> None:
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


def _file(work: Work) -> SplitFile:
    local, part = work.local, work.local["part"]
    place = Path(local["path"]), local["columns"], local["label"], local["values"]
    return SplitFile(*place, Part(**part) if part is not None else None)
