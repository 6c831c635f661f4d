"""Values of a label column as classes of a task, and what is wrong with those that are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from workflows.errors import ConfigError, nearest
from workflows.inputs.row_files import Value
from workflows.inputs.tables import SplitFile

_SHOWN = 5  # values of a column


@dataclass(frozen=True)
class Labels:
    """The labels of a file.

    Attributes:
        numbers: the class number of every row, None where its value is no label of the task.
        wrong: such a value as it is written, None where it is empty -> its rows, from 1.
    """

    numbers: list[int | None]
    wrong: dict[str | None, list[int]]


def label_numbers(file: SplitFile, columns: Mapping[str, Sequence[Value]], names: Sequence[str]) -> list[int]:
    """The class number of every row. Raises ConfigError for a value that is no label of the task."""
    found = read_labels(file, columns, names)
    if found.wrong:
        raise ConfigError(label_problems([(file, found)], names)[0])
    return [number for number in found.numbers if number is not None]


def read_labels(file: SplitFile, columns: Mapping[str, Sequence[Value]], names: Sequence[str]) -> Labels:
    """The labels of every row. A number or a truth value is known by any way of writing it that the task has."""
    classes = {name: number for number, name in enumerate(names)}
    known = classes if file.values is None else _mapped(file.values, classes)
    numbers: list[int | None] = []
    wrong: dict[str | None, list[int]] = {}
    for row, value in enumerate(columns[file.label], 1):
        number = next((known[way] for way in _ways(value) if way in known), None)
        numbers.append(number)
        if number is None:
            wrong.setdefault(_ways(value)[0] if value not in (None, "") else None, []).append(row)
    return Labels(numbers, wrong)


def _mapped(values: Mapping[str, str], classes: Mapping[str, int]) -> dict[str, int]:
    """A value that `values` does not name may be a label itself."""
    named = {value: classes[name] for value, name in values.items() if name in classes}
    return {**{name: number for name, number in classes.items() if name not in values}, **named}


def _ways(value: Value) -> list[str]:
    """How a value may be written in YAML, the plainest way first: 1.0 is 1 as well, and true True."""
    if isinstance(value, bool):
        return [str(value).lower(), str(value)]
    if isinstance(value, float) and value.is_integer():
        return [str(int(value)), str(value)]
    return [str(value)]


def label_problems(found: Sequence[tuple[SplitFile, Labels]], names: Sequence[str]) -> list[str]:
    """What is wrong with the labels of a task's files: where no value fits, the one cause of it."""
    wrong = [(file, labels) for file, labels in found if labels.wrong]
    if wrong and all(number is None for _, labels in wrong for number in labels.numbers):
        counts: Counter[str] = Counter()
        for _, labels in wrong:
            counts.update({value: len(rows) for value, rows in labels.wrong.items() if value is not None})
        if counts:
            return [_unmapped([file for file, _ in wrong], counts, names)]
    return [_wrong_label(file, value, rows, names) for file, labels in wrong for value, rows in labels.wrong.items()]


def _unmapped(files: Sequence[SplitFile], counts: Counter[str], names: Sequence[str]) -> str:
    values = sorted(counts)[:_SHOWN]
    more = f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else ""
    shown = ", ".join(f"{value!r} ({counts[value]:,} rows)" for value in values) + more
    given = files[0].values
    expected = f"`values` has {', '.join(map(repr, given))}" if given else f"the labels are {', '.join(names)}"
    paths = " and ".join(dict.fromkeys(str(file.path) for file in files))
    example = ", ".join(f'"{value}": {name}' for value, name in zip(values, names, strict=False))
    return (
        f"{paths}: no value of column {files[0].label!r} is a label of the task: found {shown}; {expected}. In the "
        f"task's `source`, map each value to a label, for example values: {{{example}}}"
    )


def _wrong_label(file: SplitFile, value: str | None, rows: Sequence[int], names: Sequence[str]) -> str:
    where = f"{file.path}: row {rows[0]}" + (f" and {len(rows) - 1:,} more" if len(rows) > 1 else "")
    if value is None:
        return f"{where}: column {file.label!r} is empty; expected a label"
    if file.values is not None and value not in file.values:
        return f"{where}: value {value!r} is not in the task's `values`; {nearest(value, list(file.values))}"
    name = file.values.get(value, value) if file.values is not None else value
    mapped = f" (from {value!r} by `values`)" if name != value else ""
    return (
        f"{where}: label {name!r}{mapped} has no word in the task's `words`; {nearest(name, list(names))} If it is "
        "another spelling of a label, map it with `values`."
    )


def rows_of(names: Collection[str], numbers: Iterable[int | None]) -> dict[str, int]:
    """How many rows each label has. `numbers`: the class of each row."""
    counts = Counter(numbers)
    return {name: counts[number] for number, name in enumerate(names)}


def smaller_labels(rows: Mapping[str, int], size: int) -> dict[str, int]:
    """Labels with fewer training rows than a training size asks for, and how many they have: all of them are taken."""
    return {name: count for name, count in rows.items() if count < size}


def smaller_label(name: str, count: int, size: int) -> str:
    """One of these for a person."""
    return f"label {name!r} has {count} training rows, fewer than the {size} of train_size; all of them are taken"


def training_problems(rows: Mapping[str, int]) -> list[str]:
    """Why labels with so many training rows cannot be learned from; a label with one row has no validation row."""
    problems = [
        f"label {name!r} has no training row; add rows, or remove the label from the task's `words`"
        for name, count in rows.items()
        if not count
    ]
    if not problems and max(rows.values()) < 2:
        problems = ["no label has two training rows, so there are no validation rows; add rows"]
    return problems
