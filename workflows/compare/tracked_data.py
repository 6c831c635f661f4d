"""What a run read and predicted, as a tracker shows it: data sets, curves, and a table of predictions a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from orchestration.errors import DamagedArtifact
from orchestration.graph import Step, in_order
from orchestration.store.artifacts import Store
from orchestration.tracking.tracker import TrackedData
from workflows.compare.graph import Cell
from workflows.inputs.tables import field_columns
from workflows.runtime.progress import Say

_TEXT = 200  # characters of a row that the table shows


def data_of(task: str, rows: Mapping[str, Step], target: Step) -> tuple[TrackedData, ...]:
    """Of the splits of a task, given by the steps that store their rows, those that a step and all before it read."""
    read = list(in_order([target]))  # steps are told apart by what they are, for both splits may hold the same rows
    return tuple(
        TrackedData(task, step.key, split, str(step.local["path"])) for split, step in rows.items() if step in read
    )


def thinned(values: Sequence[float], most: int, first: int = 0) -> list[tuple[int, float]]:
    """Points (step, value) of a curve that begins at step `first`: all where they are few, its last always."""
    last, apart = len(values) - 1, max(1, -(-len(values) // most))
    return [(first + place, float(value)) for place, value in enumerate(values) if (last - place) % apart == 0]


def prediction_tables(cells: Sequence[Cell], store: Store, say: Say) -> Iterator[tuple[str, dict[str, Any]]]:
    """For each model and task a name and a table (`TrackedRun.table_files`): a line a test row, a column a method.

    A method of several seeds is shown by its first, one of several training sizes by the largest, which comes first.
    Cells whose fits are not there are left out; a table that is damaged is named and left out.
    """
    for (model, task), group in groupby(cells, key=lambda cell: (cell.model, cell.task)):
        largest: dict[str, Cell] = {}
        for cell in group:
            largest.setdefault(cell.method, cell)
        made = [cell for cell in largest.values() if _is_made(cell, store)]
        try:
            table = _table(made, store) if made else None
        except DamagedArtifact as error:
            say(f"no table of predictions of {model} {task}: {error}")
            continue
        if table is not None:
            yield f"test-predictions-{model}-{task}.json", table


def _is_made(cell: Cell, store: Store) -> bool:
    """What is damaged was named where its result is read."""
    try:
        return all(store.find(step) is not None for step in (cell.score, *cell.fits.values()))
    except DamagedArtifact:
        return False


def _table(cells: Sequence[Cell], store: Store) -> dict[str, Any]:
    from orchestration.store.arrow import ROW_ID

    names = list(cells[0].labels)
    fits = {cell.method: _columns(store, cell.fits[min(cell.fits)], (ROW_ID, "prediction")) for cell in cells}
    rows = fits[cells[0].method][ROW_ID]
    labels = _columns(store, cells[0].score.inputs["labels"], ("label",))["label"]
    texts = _shown(store, cells)
    columns = ["row", "text", "label", *fits]
    data = [
        [row, texts.get(row, ""), names[labels[row]], *(names[found["prediction"][place]] for found in fits.values())]
        for place, row in enumerate(rows)
    ]
    return {"columns": columns, "data": data}


def _shown(store: Store, cells: Sequence[Cell]) -> dict[int, str]:
    """Row -> the beginning of its fields, joined."""
    from orchestration.store.arrow import ROW_ID, read_table

    artifact = store.find(cells[0].rows["test"])
    if artifact is None:
        return {}
    found = {}
    for path in artifact.shards():
        table = read_table(path)
        for row, fields in zip(table.column(ROW_ID).to_pylist(), field_columns(table).to_pylist(), strict=True):
            found[row] = " / ".join(map(str, fields.values()))[:_TEXT]
    return found


def _columns(store: Store, step: Step, names: Sequence[str]) -> dict[str, list[Any]]:
    from orchestration.store.arrow import read_table

    artifact = store.find(step)
    assert artifact is not None, f"{step.label} was scored, so it is there"
    tables = [read_table(path) for path in artifact.shards()]
    return {name: [value for table in tables for value in table.column(name).to_pylist()] for name in names}
