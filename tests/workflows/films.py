"""A small task that tests of workflows share: films that are fine or dull."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TASK: dict[str, Any] = {
    "name": "films",
    "source": {"train": "train.jsonl", "test": "test.jsonl"},
    "template": "review: {text}\n sentiment:",
    "words": {"bad": "negative", "good": "positive"},
    "label_tokens": "first",
}
Rows = Sequence[Mapping[str, str]]


def films(count: int) -> list[dict[str, str]]:
    """Rows of the task, bad and good in turn."""
    kinds = ({"text": "dull", "label": "bad"}, {"text": "fine", "label": "good"})
    return [{**kinds[i % 2], "text": f"a {kinds[i % 2]['text']} film number {i}"} for i in range(count)]


def write_films(folder: Path, train: Rows, test: Rows, task: Mapping[str, Any] = TASK) -> None:
    """The task as films.yaml, and its two files of rows."""
    for split, rows in (("train", train), ("test", test)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "films.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
