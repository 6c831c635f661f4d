"""Steps on the rows that a user's own network reads, and on the states that it gives of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step, called
from orchestration.store.artifacts import Artifact
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.config.compare import Encoding, Execution
from workflows.config.layers import stored_layers
from workflows.errors import ConfigError
from workflows.inputs.catalog import Task
from workflows.inputs.networks import OpenNetwork
from workflows.inputs.row_files import Value
from workflows.inputs.tables import Split, SplitFile, field_columns, fields_of_rows, row_names
from workflows.steps.code import code_of
from workflows.steps.data import file_at, fill_rows, rows_step
from workflows.steps.measures import measured, numerics
from workflows.steps.networks.head import files_of, network_at, place_of
from workflows.steps.states import BYTES, stored_states

if TYPE_CHECKING:
    from torch import Tensor

LAYERS = ("layer_00", "head")  # the input of the module, flat, and that of its head
_SHOWN = 3  # rows that cannot be read, named in a message


def plain_rows(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[dict[str, Any]]:
    """The fields of every row. Raises ConfigError for one that is missing."""
    if problems := missing_values(file, columns):
        raise ConfigError(problems[0])
    return fields_of_rows(file, columns)


def missing_values(file: SplitFile, columns: Mapping[str, Sequence[Value]]) -> list[str]:
    """What is wrong with fields that a network shall read: those without a value."""
    return [
        f"{file.path}: row {number}: column {file.columns[field]!r} has no value; expected one"
        for number, row in enumerate(fields_of_rows(file, columns), 1)
        for field, value in row.items()
        if value is None or value == ""
    ]


def network_rows_step(task: Task, split: Split, limit: int | None, facts: FingerprintCache) -> Step:
    """The fields of a split's rows: numbers and text as they are, files and arrays by their digests."""
    return rows_step("rows", fill_network_rows, task, split, limit, facts)


def fill_network_rows(work: StepContext) -> None:
    """Shards of row_id (place in the source), row_hash and the fields."""
    fill_rows(work, plain_rows)


def network_encode_step(
    name: str, network: OpenNetwork, task: Task, rows: Step, encoding: Encoding, execution: Execution
) -> Step:
    """A split's states. `name`: of the model."""
    layers, place = stored_layers(encoding.layers, LAYERS), place_of(network)
    subject = {"model": name, **rows.subject}
    widths = _widths(network)
    return Step(
        name="encode",
        label=f"encode {called(subject)}",
        version=1,
        run="workflows.steps.networks.states:NetworkWorker",
        identity={
            "source": place["source"],
            "weights": place["weights"],
            "head": network.encoder.name,
            "layers": layers,
            "store_dtype": encoding.store_dtype,
            # Of new rows each gets an answer.
            "skip_unreadable": task.config.source.skip_unreadable and rows.subject["split"] != "new",
        },
        inputs={"rows": rows},
        local={"source": dict(rows.local)},
        setup=place,
        resources=Resources(cpus=None, gpus=execution.gpus_per_encoder, workers=execution.encoders),
        cost="encode",
        files=(*files_of(network), *rows.files),
        bytes=rows.local["rows"] * sum(widths[layer] for layer in layers) * BYTES[encoding.store_dtype],
        subject=subject,
        remarks="workflows.steps.networks.states:left_out",
        sources=code_of(NetworkWorker),
    )


def _widths(network: OpenNetwork) -> dict[str, int]:
    """Of the states of each layer."""
    return {"layer_00": network.network.example.numel(), "head": network.encoder.head.weight.shape[1]}


class NetworkWorker:
    """Holds the network; fills one shard of states for each shard of rows."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        import torch

        self._network = network_at(dict(setup))
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network.encoder.module.to(self._device)
        self._source: tuple[Any, Any] = None, None

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return len(work.inputs["rows"].manifest["shards"])

    def fill(self, work: StepContext, shard: int) -> None:
        """row_id and row_hash of the rows, and a column a layer; without rows that cannot be read, where so asked.

        Of a shard that may be all of them, as long as the split has others.
        """
        import numpy as np

        from orchestration.store.arrow import ROW_ID, column_array, read_table, table_of

        table = read_table(work.inputs["rows"].shard(shard))
        ids = column_array(table, ROW_ID)
        with measured() as took:
            inputs, unreadable = self._inputs(work, ids.tolist(), field_columns(table).to_pylist(), shard)
            kept = np.array([place not in unreadable for place in range(len(ids))])
            self._check_unreadable(work, ids, unreadable, shard)
            columns = self.columns(work.identity, inputs)
        work.tell(len(ids), len(ids), "rows", part=str(shard), at_once=True)
        hashes = column_array(table, "row_hash")[kept]
        work.out.write_shard(shard, table_of(ids[kept], {"row_hash": hashes, **columns}), numerics(self._device), took)

    def columns(self, identity: Mapping[str, Any], inputs: Sequence[Tensor]) -> dict[str, Any]:
        """A column a layer of inputs that the module takes."""
        import torch

        if not inputs:  # which not every module takes
            widths = _widths(self._network)
            return {
                name: stored_states(name, torch.empty(0, widths[name]), identity["store_dtype"])
                for name in identity["layers"]
            }
        batch = torch.stack(list(inputs))
        read = {"layer_00": lambda: batch.flatten(1).float(), "head": lambda: self._network.encoder.encode(batch)}
        return {name: stored_states(name, read[name](), identity["store_dtype"]) for name in identity["layers"]}

    def input_of(self, row: Mapping[str, Any], name: str) -> Tensor:
        """A row with its contents as the module takes it. `name`: in errors."""
        return self._network.input_of(row, name)

    def _inputs(
        self, work: StepContext, ids: Sequence[int], rows: Sequence[Mapping[str, Any]], shard: int
    ) -> tuple[list[Tensor], dict[int, str]]:
        """What the module takes of rows, and why others, by their place, cannot be read."""
        from workflows.inputs.contents import Unreadable

        names = row_names(ids)
        inputs: list[Tensor] = []
        unreadable: dict[int, str] = {}
        for place, (row, fields, name) in enumerate(zip(ids, rows, names, strict=True)):
            try:
                whole = self._whole(work, row, fields)
            except Unreadable as error:
                unreadable[place] = str(error)
                continue
            inputs.append(self._network.input_of(whole, name))
            work.report_alive(shard)
            work.tell(place + 1, len(ids), "rows", part=str(shard))
        return inputs, unreadable

    def _whole(self, work: StepContext, row: int, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A row with its contents. Raises Unreadable."""
        content = self._content(work.local["source"])
        return {field: content(row, field, value) for field, value in fields.items()}

    def _content(self, source: Mapping[str, Any]) -> Any:
        """What gives contents of a source, opened once for its shards."""
        from workflows.inputs.contents import contents_of

        if self._source[0] != source:
            self._source = source, contents_of(file_at(source))
        return self._source[1]

    def _other_readable(self, work: StepContext, shard: int) -> bool:
        """Whether any row of the other shards can be read."""
        from orchestration.store.arrow import ROW_ID, column_array, read_table
        from workflows.inputs.contents import Unreadable

        for other in range(self.shard_count(work)):
            if other == shard:
                continue
            table = read_table(work.inputs["rows"].shard(other))
            for row, fields in zip(column_array(table, ROW_ID).tolist(), field_columns(table).to_pylist(), strict=True):
                work.report_alive(shard)
                with suppress(Unreadable):
                    self._whole(work, row, fields)
                    return True
        return False

    def _check_unreadable(self, work: StepContext, ids: Any, unreadable: Mapping[int, str], shard: int) -> None:
        """Raises ConfigError for rows that cannot be read, or where none of the split can."""
        skip = work.identity["skip_unreadable"]
        if not unreadable or (skip and (len(unreadable) < len(ids) or self._other_readable(work, shard))):
            return
        rows = work.inputs["rows"].rows
        count, of = (rows, rows) if skip else (len(unreadable), len(ids))
        lines = [f"  row {ids[place] + 1}: {told}" for place, told in list(unreadable.items())[:_SHOWN]]
        more = count - len(lines)
        lines += [f"  and {more:,} more"] if more else []
        advice = "remove them, or set skip_unreadable: true in the task's `source`, which leaves such rows out"
        if skip:
            advice = "at least one has to be readable; look at the files"
        raise ConfigError(
            f"{work.local['source']['path']}: {count:,} of {of:,} rows cannot be read; {advice}\n" + "\n".join(lines)
        )


def left_out(step: Step, artifact: Artifact) -> dict[str, str]:
    """A line about rows that could not be read."""
    rows = step.inputs["rows"].local["rows"]
    gone = rows - artifact.rows if step.identity["skip_unreadable"] else 0
    return {step.key: f"{step.label}: {gone:,} of {rows:,} rows cannot be read and are left out"} if gone > 0 else {}
