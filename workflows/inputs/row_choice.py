"""Which rows of a file a split has: its part of a file that both splits share, and of these what a limit keeps."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.inputs.labels import read_labels
from workflows.inputs.row_files import Value
from workflows.inputs.tables import (
    Part,
    Split,
    SplitFile,
    fields_of_rows,
    kept_rows,
    read_split,
    remembered,
    row_hash,
)

_KEPT_OF_A_LABEL = 2  # training rows that a limit leaves: one to learn from and one for validation
_Class = int | None  # of a row; None where its value is no label, which is told elsewhere


def chosen_rows(
    file: SplitFile, columns: Mapping[str, Sequence[Value]], names: Sequence[str], split: Split, limit: int | None
) -> list[int]:
    """The places of the rows of a split, in the file's order: its part of the file, and of these what a limit keeps.

    A limit on training rows keeps two rows of every label at least, where the file has them.
    """
    hashes = [row_hash(row) for row in fields_of_rows(file, columns)]
    labels = read_labels(file, columns, names).numbers
    places = list(range(len(hashes))) if file.part is None else _part_rows(hashes, labels, file.part)
    if limit is None or limit >= len(places):
        return places
    ranked = sorted(places, key=lambda place: (hashes[place], place))
    needed: set[int] = set()
    if split == "train":
        by_label = _by_label({place: labels[place] for place in ranked})
        needed = {place for mine in by_label for place in mine[:_KEPT_OF_A_LABEL]}
    others = [place for place in ranked if place not in needed]
    inside = needed & set(ranked[:limit])
    return sorted([*needed, *others[: max(0, limit - len(needed))]]) if needed != inside else sorted(ranked[:limit])


def _part_rows(hashes: Sequence[int], labels: Sequence[_Class], part: Part) -> list[int]:
    """Of each label's texts the seeded share is for testing, one at least and never all; equal texts stay together."""
    label_of: dict[int, _Class] = {}
    for text, label in zip(hashes, labels, strict=True):  # of a text with two labels, one: in whatever order they come
        label_of[text] = min(label_of.get(text, label), label, key=lambda number: -1 if number is None else number)
    test: set[int] = set()
    for texts in _by_label(label_of):
        drawn = sorted(texts, key=lambda text: hashlib.sha256(f"{part.seed} {text}".encode()).digest())
        test.update(drawn[: min(max(1, round(part.share * len(drawn))), len(drawn) - 1)])
    return [place for place, text in enumerate(hashes) if (text in test) == (part.split == "test")]


def _by_label(labels: Mapping[int, _Class]) -> list[list[int]]:
    """What has each label, in the given order."""
    groups: defaultdict[_Class, list[int]] = defaultdict(list)
    for key, label in labels.items():
        groups[label].append(key)
    return list(groups.values())


def digest_and_count(
    file: SplitFile, names: Sequence[str], split: Split, limit: int | None, facts: FingerprintCache
) -> tuple[str, int] | None:
    """Of the places of a split's rows; None where they are those that a limit keeps by hash of the row alone."""
    if file.part is None and (split == "test" or limit is None):
        return None

    def compute() -> list[Any] | None:
        columns = read_split(file, file.names).values
        chosen = chosen_rows(file, columns, names, split, limit)
        plain = chosen == kept_rows(fields_of_rows(file, columns), limit)
        return None if plain else [digest_of(chosen), len(chosen)]

    read, asked = f"{sorted(file.columns.items())} {file.label!r} {file.values}", f"{file.part} {split} {limit}"
    found = remembered(f"rows and their count {read} {list(names)} {asked}", file, compute, facts)
    return None if found is None else (found[0], found[1])


def digest_of(places: Sequence[int]) -> str:
    """What tells one choice of rows from another."""
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()
