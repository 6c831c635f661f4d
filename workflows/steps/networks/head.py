"""Steps on the head of a user's own network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.store.files import json_bytes
from workflows.errors import ConfigError
from workflows.inputs.catalog import Task
from workflows.inputs.network_sources import open_network
from workflows.inputs.networks import OpenNetwork
from workflows.steps import HEAD_ROWS_PER_SHARD
from workflows.steps.code import code_of
from workflows.steps.measures import measured
from workflows.steps.states import BYTES


def place_of(network: OpenNetwork) -> dict[str, Any]:
    """Where a worker finds a network, and by what it knows that it is the one."""
    return {"function": str(network.source), "source": network.source.digest, "weights": network.weights}


def network_at(place: dict[str, Any]) -> OpenNetwork:
    """The network of such a place. Raises ConfigError where it is no longer what a key was made from."""
    found = open_network(place["function"], Path(place["function"]).parent)
    if found.source.digest != place["source"] or found.weights != place["weights"]:
        raise ConfigError(
            f"{found.source}: gives another network than when the run was planned; run again, and where weights are "
            "random, seed them"
        )
    return found


def files_of(network: OpenNetwork) -> tuple[str, ...]:
    """What a node must have to call it up."""
    return (*network.source.files, *map(str, network.network.files))


def head_step(name: str, network: OpenNetwork) -> Step:
    """The rows of the linear head. `name`: of the model."""
    return Step(
        name="head",
        label=f"head {name}",
        version=1,
        run="workflows.steps.networks.head:fill_head",
        identity={
            "weights": network.weights,
            "head": network.encoder.name,
            "rows_per_shard": HEAD_ROWS_PER_SHARD,
        },
        local=place_of(network),
        cost="basis",
        files=files_of(network),
        bytes=network.encoder.head.weight.numel() * BYTES["float32"],
        sources=code_of(fill_head),
    )


def fill_head(work: StepContext) -> dict[str, float]:
    """Shards of row_id (the class's number), weight [d], bias where there is one, float32; head.json."""
    from orchestration.store.arrow import table_of

    head = network_at(dict(work.local)).encoder.head
    with measured() as took:
        columns = {"weight": head.weight.float().cpu().numpy()}
        if head.bias is not None:
            columns["bias"] = head.bias.float().cpu().numpy()
        size, rows = work.identity["rows_per_shard"], len(head.weight)
        for shard, start in enumerate(range(0, rows, size)):
            part = range(start, min(start + size, rows))
            table = table_of(part, {name: values[part.start : part.stop] for name, values in columns.items()})
            work.out.write_shard(shard, table)
    work.out.write("head.json", json_bytes({"scale": 1.0, "softcap": None, "bias": head.bias is not None}))
    return took


def verbalizer_step(name: str, network: OpenNetwork, task: Task) -> Step:
    """The head's rows that stand for each label. `name`: of the model."""
    rows = network.rows_of(task.config.name, task.config.words)
    return Step(
        name="verbalizer",
        label=f"verbalizer {name} {task.config.name}",
        version=1,
        run="workflows.steps.networks.head:fill_verbalizer",
        identity={"classes": [[label, row] for label, row in rows.items()]},  # a list: the order of classes counts
        resources=Resources(cpus=0),
        sources=code_of(fill_verbalizer),
    )


def fill_verbalizer(work: StepContext) -> None:
    """verbalizer.json: the head's row of each class."""
    work.out.write("verbalizer.json", json_bytes({"tokens": [[row] for _, row in work.identity["classes"]]}))
