"""Tokens per second of pretraining: our step against the plain loop, and two workers against one."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.common import Case, alternate, seconds
from vocabsem_core.numerics.matmul import bf16_is_fast
from vocabsem_core.numerics.memory import keep_freed_memory
from vocabsem_core.pretraining.trainer import Pretraining, Recipe, new_model

PLAIN_ROWS, PLAIN_TOKENS = 48, 128  # a batch of the plain loop
STEPS, ROUNDS = 3, 5
SHAPE = Recipe(
    vocabulary=8192,
    width=256,
    layers=6,
    heads=4,
    context=PLAIN_TOKENS,
    batch_rows=PLAIN_ROWS,
    steps=1000,
    learning_rate=1e-3,
    warmup_steps=10,
    weight_decay=0.1,
    seed=0,
)


GPT2 = replace(SHAPE, vocabulary=50_304, width=768, layers=12, heads=12, context=1024, batch_rows=16)
GPU_STEPS = 10


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """At the shape of the largest reference model; where there is a GPU, on it as well. `data_dir` is not used."""
    if torch.cuda.is_available():
        yield gpu_case(SHAPE, ROUNDS)
        yield gpu_case(GPT2, ROUNDS)
    yield loop_case(SHAPE, ROUNDS)
    yield workers_case(SHAPE, ROUNDS)


def batch_of(recipe: Recipe) -> Tensor:
    """Random tokens, [rows, context + 1]."""
    shape = (recipe.batch_rows, recipe.context + 1)
    return torch.randint(0, recipe.vocabulary, shape, generator=torch.Generator().manual_seed(0))


def plain_loop(recipe: Recipe, device: str = "cpu", bf16: bool = False) -> Any:
    """A function that takes a step as a first script would: the model's own loss, AdamW, the whole batch."""
    model, batch = new_model(recipe).to(device).train(), batch_of(recipe).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            loss = model(input_ids=batch[:, :-1], labels=batch[:, :-1]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def our_loop(recipe: Recipe, bf16: bool, device: str = "cpu", compiled: bool = False) -> Any:
    """A function that takes our step on the same batch."""
    training, batch = Pretraining(recipe, 0, 1, torch.device(device), bf16, compiled), batch_of(recipe)
    return partial(training.advance, batch)


def loop_case(recipe: Recipe, rounds: int) -> Case:
    """Tokens a second of our step over those of the plain loop, each in a process of its own, with all cores."""
    bf16 = bf16_is_fast("cpu")
    wall: dict[str, list[float]] = {"plain": [], "ours": []}
    for _ in range(rounds):
        for side in wall:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
                wall[side].append(child.submit(loop_seconds, recipe, side, bf16).result())
    tokens = recipe.batch_rows * recipe.context
    speed = {side: tokens / median(found) for side, found in wall.items()}
    detail = (
        f"ours {speed['ours']:,.0f} tokens/s ({'bfloat16' if bf16 else 'float32'} products, Muon and AdamW), plain "
        f"loop {speed['plain']:,.0f} (float32, AdamW); {recipe.batch_rows} x {recipe.context} tokens a step, width "
        f"{recipe.width}, {recipe.layers} layers, {torch.get_num_threads()} threads, median of {rounds} alternating "
        f"runs; with nothing but its products, at the speed of one alone, ours would be "
        f"{median(wall['plain']) / products_seconds(recipe, bf16):.1f} times as fast"
    )
    return Case("pretrain", "our step against the plain loop", speed["ours"] / speed["plain"], 4.0, detail)


def gpu_case(recipe: Recipe, rounds: int) -> Case:
    """Tokens a second of our step on a GPU over those of the plain loop with products in bfloat16 as well."""
    sides = {
        "plain, float32": plain_loop(recipe, "cuda"),
        "plain, bfloat16": plain_loop(recipe, "cuda", bf16=True),
        "ours": our_loop(recipe, bf16=True, device="cuda"),
        "ours, compiled": our_loop(recipe, bf16=True, device="cuda", compiled=True),
    }
    first = {name: seconds(side) for name, side in sides.items()}  # with what is done once: kernels, compilation
    for side in sides.values():
        side()
    several = {name: lambda side=side: [side() for _ in range(GPU_STEPS)] for name, side in sides.items()}
    tokens = recipe.batch_rows * recipe.context
    speed = {name: GPU_STEPS * tokens / wall for name, wall in alternate(several, rounds).items()}
    told = ", ".join(f"{name} {found:,.0f}" for name, found in speed.items())
    detail = (
        f"{torch.cuda.get_device_name()}: tokens/s: {told}; compiling takes {first['ours, compiled']:.0f} s at the "
        f"first step; {recipe.batch_rows} x {recipe.context} tokens a step, width {recipe.width}, {recipe.layers} "
        f"layers; ours with Muon and AdamW, plain with AdamW; median of {rounds} alternating runs of {GPU_STEPS} steps"
    )
    case = f"on a GPU, width {recipe.width}: our step against the plain loop in bfloat16"
    return Case("pretrain", case, speed["ours"] / speed["plain, bfloat16"], 1.0, detail)


def products_seconds(recipe: Recipe, bf16: bool) -> float:
    """Seconds of a step's matrix products: what no loop on this processor can go below.

    6 operations a weight and token (Kaplan et al., arXiv 2001.08361, section 2.1), each layer's at the speed of the
    widest; attention and the optimizer are left out.
    """
    tokens, width = recipe.batch_rows * recipe.context, recipe.width
    kind = torch.bfloat16 if bf16 else torch.float32
    left, right = torch.ones(tokens // 2, width, dtype=kind), torch.ones(width, 4 * width, dtype=kind)
    one = alternate({"product": lambda: left @ right}, 50)["product"]
    weights = 12 * recipe.layers * width**2 + recipe.vocabulary * width
    return 6 * weights * tokens * one / (2 * left.numel() * 4 * width)


def loop_seconds(recipe: Recipe, side: str, bf16: bool) -> float:
    """Median seconds of a step after the first, in this process."""
    if side == "ours":
        keep_freed_memory()
    step = our_loop(recipe, bf16) if side == "ours" else plain_loop(recipe)
    step()
    return alternate({side: step}, STEPS)[side]


def workers_case(recipe: Recipe, rounds: int) -> Case:
    """Tokens a second of two processes that share each batch over those of one; one thread each."""
    bf16 = bf16_is_fast("cpu")
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for world in found:
            found[world].append(shared_seconds(recipe, world, bf16))
    tokens = recipe.batch_rows * recipe.context
    one, two = (tokens / median(found[world]) for world in (1, 2))
    detail = (
        f"two workers {two:,.0f} tokens/s, one {one:,.0f}, one thread each, gloo; same batch of {recipe.batch_rows} x "
        f"{recipe.context} tokens, median of {rounds} alternating runs"
    )
    return Case("pretrain", "two workers against one", two / one, 1.6, detail)


def shared_seconds(recipe: Recipe, world: int, bf16: bool) -> float:
    """Median seconds of a step of `world` processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ProcessPoolExecutor(world, mp_context=multiprocessing.get_context("spawn")) as children:
        done = [children.submit(worker_seconds, recipe, rank, world, bf16, port) for rank in range(world)]
        return max(child.result() for child in done)


def worker_seconds(recipe: Recipe, rank: int, world: int, bf16: bool, port: int) -> float:
    """Median seconds of a step after the first, in one of the processes."""
    torch.set_num_threads(1)
    keep_freed_memory()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    training, batch = Pretraining(recipe, rank, world, torch.device("cpu"), bf16, compiled=False), batch_of(recipe)
    training.advance(batch)
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        training.advance(batch)
        times.append(time.perf_counter() - started)
    torch.distributed.destroy_process_group()
    return median(times)
