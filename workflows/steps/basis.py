"""The step that computes the semantic basis of a stored head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.files import json_bytes
from vocabsem_core.names import RCOND
from workflows.steps.code import code_of
from workflows.steps.measures import measured

_SEEDED_ROWS = 256  # of the head, whose round trip is reported


def basis_steps(name: str, head: Step) -> dict[str, Step]:
    """By role, what methods may read of a stored head beside its rows. `name`: of the model."""
    return {"basis": basis_step(name, head), "spectrum": spectrum_step(name, head)}


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


def spectrum_step(name: str, head: Step) -> Step:
    """The eigendecomposition of a stored head's Gram matrix: a few d x d numbers, for basis rows of any shrinkage."""
    return Step(
        name="spectrum",
        label=f"spectrum {name}",
        version=1,
        run="workflows.steps.basis:fill_spectrum",
        identity={"rcond": RCOND},
        inputs={"head": head},
        cost="basis",
        sources=code_of(fill_spectrum),
    )


def fill_spectrum(work: StepContext) -> dict[str, float]:
    """spectrum.safetensors: values [rank] and vectors [d, rank], float64."""
    from safetensors.torch import save

    from vocabsem_core.numerics.ticks import listening
    from vocabsem_core.semantics.basis import semantic_basis

    with listening(work.tell), measured() as took:
        basis = semantic_basis(_blocks(work), work.identity["rcond"], work.inputs["head"].rows)
    stored = {"values": basis.values.contiguous(), "vectors": basis.vectors.contiguous()}
    work.out.write("spectrum.safetensors", save(stored))
    return took


def _blocks(work: StepContext) -> Iterator[Any]:
    """The head's rows, by shards."""
    import torch

    from orchestration.store.arrow import column_array
    from workflows.methods.inputs.states import read_tables

    return (torch.tensor(column_array(table, "weight")) for table in read_tables(work.inputs["head"]))


def fill_basis(work: StepContext) -> dict[str, float]:
    """Shards of row_id (the token id) and basis [d], float32; diagnostics.json."""
    import numpy as np
    import torch

    from orchestration.store.arrow import table_of
    from vocabsem_core.numerics.ticks import listening
    from vocabsem_core.semantics.basis import round_trip, semantic_basis
    from workflows.methods.inputs.states import read_rows

    start, whole = 0, work.inputs["head"].rows
    with listening(work.tell), measured() as took:
        basis = semantic_basis(_blocks(work), work.identity["rcond"], whole)
        for shard, block in enumerate(_blocks(work)):
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
        "round_trip": round_trip(rows, torch.from_numpy(ids), _blocks(work)),
        "round_trip_rows": len(ids),
    }
    work.out.write("diagnostics.json", json_bytes(diagnostics))
    return took
