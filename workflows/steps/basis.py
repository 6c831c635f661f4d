"""The step that computes the semantic basis of a stored head."""

from __future__ import annotations

from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.files import json_bytes
from vocabsem_core.names import RCOND
from workflows.steps.code import code_of
from workflows.steps.measures import measured

_SEEDED_ROWS = 256  # of the head, whose round trip is reported


def basis_step(name: str, head: Step) -> Step:
    """The semantic basis of a stored head, whatever it is the head of: one row a label. `name`: of the model."""
    return Step(
        name="basis",
        label=f"basis {name}",
        version=1,
        run="workflows.steps.basis:fill_basis",
        identity={"rcond": RCOND},
        inputs={"head": head},
        cost="basis",
        bytes=head.bytes,
        sources=code_of(fill_basis),
    )


def fill_basis(work: StepContext) -> dict[str, float]:
    """Shards of row_id (the token id) and basis [d], float32; diagnostics.json."""
    import numpy as np
    import torch

    from orchestration.store.arrow import column_array, table_of
    from vocabsem_core.numerics.ticks import listening
    from vocabsem_core.semantics.basis import round_trip, semantic_basis
    from workflows.methods.inputs.states import read_rows, read_tables

    tables = read_tables(work.inputs["head"])

    def blocks() -> Any:
        return (torch.tensor(column_array(table, "weight")) for table in tables)

    start, whole = 0, work.inputs["head"].rows
    with listening(work.tell), measured() as took:
        basis = semantic_basis(blocks(), work.identity["rcond"], whole)
        for shard, block in enumerate(blocks()):
            columns = {"basis": basis.rows(block).numpy()}
            work.out.write_shard(shard, table_of(range(start, start + len(block)), columns))
            start += len(block)
            work.tell(start, whole, "rows written")
    ids = np.sort(np.random.default_rng(0).choice(start, size=min(_SEEDED_ROWS, start), replace=False))
    rows = basis.rows(torch.from_numpy(read_rows(work.inputs["head"], "weight", ids.tolist())))
    diagnostics = {
        "rows": start,
        "rank": basis.rank,
        "condition": basis.condition,
        "round_trip": round_trip(rows, torch.from_numpy(ids), blocks()),
        "round_trip_rows": len(ids),
    }
    work.out.write("diagnostics.json", json_bytes(diagnostics))
    return took
