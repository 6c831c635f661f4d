"""Bytes, seconds and cost of a large run, calculated from named assumptions: `python -m tools.capacity --help`.

A model of the encoding, since the language model is where the time goes. It follows what `steps/model.py` does: every
worker starts, loads the whole model, and fills shards one after another, computing a shard's states and then writing
them. docs/capacity.md is made from here.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from workflows.steps import ROWS_PER_SHARD

GPUS = (1, 8, 64)
# Llama-3-70B on GPUs of 80 GB
LARGE = {"layers": 80, "width": 8_192, "feed_forward": 28_672, "gpus_per_worker": 2}
_ROW_BYTES = 8 + 8 + 4 + 4  # row_id, row_hash, tokens, cut: beside the states of a row
_CONFIG = "config.json of Meta-Llama-3-8B"


def _given(value: float, unit: str, source: str) -> Any:
    return dataclasses.field(default=value, metadata={"unit": unit, "source": source})


@dataclass(frozen=True)
class Assumptions:
    """What the calculation starts from: data, model, machines, prices."""

    prompts: float = _given(120_000, "rows", "AG News, training split (paper, table 2)")
    prompt_tokens: float = _given(
        65, "tokens", "59.2 of the text (paper, table 2); 6 of template and start token (ours)"
    )
    padding: float = _given(
        1.22,
        "tokens computed per token",
        "measured: our batches of 16,384 tokens, the lengths of 5,000 AG News prompts",
    )
    layers: float = _given(32, "blocks", _CONFIG)
    width: float = _given(4_096, "numbers per state", _CONFIG)
    key_value_width: float = _given(1_024, "numbers", f"{_CONFIG}: 8 heads of 128")
    feed_forward: float = _given(14_336, "numbers", _CONFIG)
    vocabulary: float = _given(128_256, "tokens", _CONFIG)
    weight_bytes: float = _given(2, "bytes a weight", "bfloat16, `dtype` in the catalog's llama3-8b.yaml")
    state_bytes: float = _given(2, "bytes a number", "float16, the default of `encoding.store_dtype`")
    gpu_flops: float = _given(312e12, "operations/s", "NVIDIA A100 data sheet, dense bfloat16")
    gpu_share: float = _given(0.4, "share of it reached", "assumed; not measured by us on a GPU")
    gpus_per_worker: float = _given(1, "GPUs", "`execution.gpus_per_encoder`; of several, one computes at a time")
    gpus_per_node: float = _given(8, "GPUs", "assumed")
    gpu_price: float = _given(2.0, "$ a GPU and hour", "assumed; put in your own")
    start_seconds: float = _given(20, "s", "assumed; Ray and the imports of torch and more took 10 s on 2 CPU cores")
    node_bandwidth: float = _given(1.25e9, "bytes/s each way", "assumed: a network of 10 Gbit/s")
    store_read: float = _given(5e9, "bytes/s, all nodes", "assumed: a shared file system")
    store_write: float = _given(2e9, "bytes/s, all nodes", "assumed: a shared file system")
    to_gpu: float = _given(5e9, "bytes/s a GPU", "assumed: from memory that is not pinned")
    storage_price: float = _given(0.08, "$ a GB and month", "assumed")


@dataclass(frozen=True)
class Estimate:
    """What one run of the encoding comes to.

    Attributes:
        stored: bytes of the states.
        seconds: what -> seconds, in the order they pass.
        limit: the largest of `seconds`: what to change first.
        gpu_hours, cost: of all GPUs from the start to the last shard; dollars.
        storage: dollars a month.
    """

    gpus: int
    stored: float
    seconds: Mapping[str, float]
    limit: str
    gpu_hours: float
    cost: float
    storage: float

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def weights(a: Assumptions) -> float:
    """Weights of a Llama with an untied head."""
    return a.layers * (_matrices(a) + 2 * a.width) + 2 * a.vocabulary * a.width + a.width


def token_flops(a: Assumptions) -> float:
    """Operations of one token's forward pass without the head: a product counts two for each weight.

    Attention is counted over all pairs of a prompt, also those that a causal mask hides.
    """
    attention = 4 * a.width * a.prompt_tokens  # scores and weighted sum, each 2 · tokens · width
    return a.layers * (2 * _matrices(a) + attention)


def _matrices(a: Assumptions) -> float:
    """Weights of a block's products: queries and output, keys and values, the gated feed-forward."""
    return 2 * a.width**2 + 2 * a.width * a.key_value_width + 3 * a.width * a.feed_forward


def row_bytes(a: Assumptions, columns: int) -> float:
    """Bytes of one row of states in a store."""
    return _ROW_BYTES + columns * a.width * a.state_bytes


def basis_bytes(a: Assumptions) -> float:
    """Bytes of the artifacts head and basis: a bfloat16 head is stored as float32, and so is the basis."""
    return 2 * a.vocabulary * (8 + 4 * a.width)


def estimate(a: Assumptions, columns: int, gpus: int) -> Estimate:
    """The encoding of all prompts on `gpus` GPUs, as many workers as they make, `columns` states a prompt.

    Raises ValueError where they make none.
    """
    if gpus < a.gpus_per_worker:
        raise ValueError(f"--gpus {gpus}: a worker needs {a.gpus_per_worker:g} GPUs; give as many or more")
    nodes, workers = math.ceil(gpus / a.gpus_per_node), gpus // a.gpus_per_worker
    on_a_node = math.ceil(workers / nodes)
    rounds = math.ceil(math.ceil(a.prompts / ROWS_PER_SHARD) / workers)  # a worker fills one shard after another
    rows = rounds * min(ROWS_PER_SHARD, a.prompts)
    model = weights(a) * a.weight_bytes
    reading = {
        "network (loading the model)": model / a.node_bandwidth,  # once a node: its memory keeps the file
        "shared disk (loading the model)": nodes * model / a.store_read,
    }
    writing = {
        "network (writing states)": rows * row_bytes(a, columns) * on_a_node / a.node_bandwidth,
        "shared disk (writing states)": rows * row_bytes(a, columns) * workers / a.store_write,
    }
    seconds = {
        "start": a.start_seconds,
        "loading": max(reading.values()) + model / a.to_gpu,
        "compute": rows * a.prompt_tokens * a.padding * token_flops(a) / (a.gpu_flops * a.gpu_share),
        "writing": max(writing.values()),
    }
    largest = max(seconds, key=seconds.__getitem__)
    detailed = {"loading": reading, "writing": writing}.get(largest)
    hours = gpus * sum(seconds.values()) / 3600
    stored = a.prompts * row_bytes(a, columns)
    return Estimate(
        gpus,
        stored,
        seconds,
        max(detailed, key=detailed.__getitem__) if detailed else largest,
        hours,
        hours * a.gpu_price,
        stored / 1e9 * a.storage_price,
    )


def table(a: Assumptions, gpus: Sequence[int] = GPUS) -> str:
    """The results as Markdown: head only, then all layers."""
    lines = [
        "| stored | GPUs | GB of states | start s | loading s | compute s | writing s | total s | GPU hours | $ | "
        "$ a month, stored | binding limit |",
        "| --- " * 12 + "|",
    ]
    for name, columns in (("head only", 1), ("all layers", int(a.layers) + 2)):
        for number in gpus:
            e = estimate(a, columns, number)
            parts = " | ".join(f"{value:,.0f}" for value in e.seconds.values())
            lines.append(
                f"| {name} | {number} | {e.stored / 1e9:.2f} | {parts} | {e.total:,.0f} | {e.gpu_hours:.2f} | "
                f"{e.cost:.2f} | {e.storage:.2f} | {e.limit} |"
            )
    return "\n".join(lines)


def assumptions_table(a: Assumptions) -> str:
    """Every assumption as Markdown."""
    rows = [
        f"| `{field.name}` | {getattr(a, field.name):,.10g} | {field.metadata['unit']} | {field.metadata['source']} |"
        for field in dataclasses.fields(a)
    ]
    return "\n".join(["| name | value | unit | source |", "| --- | --- | --- | --- |", *rows])


def page() -> str:
    """docs/capacity.md."""
    a = Assumptions()
    one, large = estimate(a, 1, 1), dataclasses.replace(a, **LARGE)
    parts = [
        "# What a large run costs",
        "Made by `python -m tools.reference docs` from `tools/capacity.py`: a calculation, not a measurement. "
        f"It assumes Llama-3-8B, {a.prompts:,.0f} prompts of {a.prompt_tokens:g} tokens and float16 states, stored for "
        f"only the head or for all {a.layers + 2:.0f} columns (`layer_00` to `layer_{a.layers:.0f}`, `head`).",
        table(a),
        "The binding limit is the largest of the four times: improving any other part would help less. The times in "
        "a row are those of one worker, which starts, loads, and then fills its shards of "
        f"{ROWS_PER_SHARD:,} rows: there are {math.ceil(a.prompts / ROWS_PER_SHARD)} shards, and any more GPUs would "
        "be idle. The cost covers all GPUs from the start to the last shard.",
        "With your own numbers:",
        "```sh\npython -m tools.capacity gpu_price=3.5 gpu_flops=989e12 store_write=10e9 --gpus 4 --gpus 16\n```",
        "## A model larger than one GPU",
        f"Llama-3-70B is {weights(large) * a.weight_bytes / 1e9:,.0f} GB in bfloat16: two GPUs of 80 GB hold it, with "
        "`execution: {gpus_per_encoder: 2}`. Its layers lie on both, and a batch passes through one after the other, "
        "so one GPU of the two computes at a time. It reads the same prompts:",
        table(large, (2, 8, 64)),
        "```sh\npython -m tools.capacity "
        + " ".join(f"{name}={value}" for name, value in LARGE.items())
        + " --gpus 2 --gpus 8\n```",
        "## Assumptions",
        assumptions_table(a),
        "## How it is calculated",
        "\n".join(
            [
                f"- weights: {weights(a):,.0f}; operations per token, without the head: {token_flops(a):.3g}.",
                f"- states: rows x ({_ROW_BYTES} + columns x {a.width:g} x {a.state_bytes:g}) bytes, "
                f"{one.stored / a.prompts:,.0f} per row for only the head.",
                f"- `head` and `basis`, once per model, for any prompts: {basis_bytes(a) / 1e9:.2f} GB, and on the "
                f"CPU {4 * a.vocabulary * a.width**2:.2g} operations in float64 and an eigendecomposition. A random "
                "head of this shape took 979 s on one thread of a busy machine (`python -m tests.benchmarks basis`): "
                "longer than the encoding on 8 GPUs. Compute it beforehand: `vocabsem basis llama3-8b`.",
                "- loading: each node reads the model once over its network, and all nodes share the disk's read "
                "rate; then the model is copied to the GPU.",
                "- compute: rows x tokens x padding x operations / (`gpu_flops` x `gpu_share`), for the worker with "
                "most shards.",
                "- writing: not at the same time as computing; the slower of the node's network and the shared disk.",
            ]
        ),
        "Not included: the cost of methods on the stored states (they do not run the language model); reading the "
        "model's files once for their digest; checksums of shards; downloads from the hub.",
    ]
    return "\n\n".join(parts) + "\n"


def changed(pairs: Sequence[str]) -> Assumptions:
    """The assumptions with NAME=VALUE pairs put in. Raises ValueError that says what was expected."""
    known = {field.name for field in dataclasses.fields(Assumptions)}
    values: dict[str, float] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name not in known:
            raise ValueError(f"no assumption {name!r}; there are {', '.join(sorted(known))}")
        try:
            values[name] = float(text)
        except ValueError:
            raise ValueError(f"{pair!r}: expected {name}=NUMBER, for example {name}=2.5e9") from None
        if not 0 < values[name] < math.inf:
            raise ValueError(f"{pair!r}: expected a number above 0")
    return Assumptions(**values)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE", help="Assumptions that differ from those of docs/capacity.md."),
    ] = None,
    gpus: Annotated[
        list[int] | None, typer.Option(min=1, help="A number of GPUs; can be repeated (default: 1, 8 and 64).")
    ] = None,
) -> None:
    """Calculate bytes, seconds and cost of a large run from named assumptions."""
    try:
        assumptions = changed(changes or ())
        found = table(assumptions, gpus or GPUS)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(found, assumptions_table(assumptions), sep="\n\n")


if __name__ == "__main__":
    app()
