"""Prompts to states: our Encoder against the usual padded loop, and the orchestrated run against our bare loop."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.common import MIB, REFERENCE, Case, alternate, anonymous_bytes, peak_anonymous
from vocabsem_core.features.checkpoints import load_model, load_tokenizer
from vocabsem_core.features.encoder import BATCH_TOKENS, Encoder, batches
from vocabsem_core.features.prompts import tokenize
from vocabsem_core.numerics.matmul import bf16_is_fast
from vocabsem_core.numerics.memory import keep_freed_memory
from workflows.steps import ROWS_PER_SHARD

TEMPLATE = "Input: {text}\nType:"
SIZES = (1, 4, 8, 16, 32, 64)  # batch sizes tried for the usual way
WINDOW = 512  # tokens, of the reference model
FEW, MANY, ROUNDS = 2_000, 6_000, 5
PROMPTS, MODEL_ROUNDS = 96, 3  # of a model that is given
SPARE = 1.2  # times the memory of the usual loop with one prompt a batch


def cases(data_dir: Path | None = None, model: Path | None = None) -> Iterator[Case]:
    """On the reference model in float32, both loops and a run; on a model folder, the loops, precisions and memory."""
    keep_freed_memory()  # as our worker does; here both sides have it
    if model is not None:
        yield from model_cases(model, numbered(texts(data_dir), PROMPTS)[:PROMPTS])
        return
    loops = Loops(REFERENCE)
    found = texts(data_dir)
    yield loop_case(loops, numbered(found, 384) if len(found) < 384 else found[:384], ROUNDS)
    yield orchestrated_case(loops, numbered(found, MANY))


def texts(data_dir: Path | None) -> list[str]:
    """Test texts of agnews where the folder is given, else of the starter task topics."""
    starter = REFERENCE.parents[1] / "starter" / "topics"
    path = (data_dir / "agnews" if data_dir else starter) / "test.jsonl"
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def numbered(found: Sequence[str], count: int) -> list[str]:
    """`count` texts: repeated as needed, a number before each that repeats one."""
    return [found[i] if i < len(found) else f"{i // len(found)} {found[i % len(found)]}" for i in range(count)]


@dataclass
class Loops:
    """The two loops over one loaded model, on the processor. States are [n, d], in the texts' order."""

    folder: Path
    dtype: str = "float32"

    @cached_property
    def model(self) -> Any:
        return load_model(self.folder, self.dtype, "cpu")

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.folder)

    def ours(self, found: Sequence[str], done: Callable[[int], None] = lambda rows: None) -> Tensor:
        """Our loop, a shard's rows at a time; `done` hears how many rows are done."""
        encoder, states = Encoder(self.model), []
        for start in range(0, len(found), ROWS_PER_SHARD):
            part = [{"text": text} for text in found[start : start + ROWS_PER_SHARD]]
            prompts = tokenize(self.tokenizer, TEMPLATE, part, WINDOW)
            states.append(encoder.encode([prompt.ids for prompt in prompts])["head"])
            done(start + len(part))
        return torch.cat(states)

    @torch.inference_mode()
    def usual(self, found: Sequence[str], size: int) -> Tensor:
        """The usual loop: order of the data, padded batches with a mask, all hidden states, all logits."""
        self.tokenizer.pad_token, self.tokenizer.padding_side = self.tokenizer.eos_token, "right"
        states = []
        for start in range(0, len(found), size):
            prompts = [TEMPLATE.format(text=text) for text in found[start : start + size]]
            batch = self.tokenizer(prompts, return_tensors="pt", padding=True, truncation=True, max_length=WINDOW)
            output = self.model(**batch, output_hidden_states=True)
            last = batch["attention_mask"].sum(dim=1) - 1
            states.append(output.hidden_states[-1][torch.arange(len(prompts)), last])
        return torch.cat(states)


def model_cases(folder: Path, found: Sequence[str]) -> Iterator[Case]:
    """Both loops at the usual one's best, in each precision; bfloat16 against float32; memory."""
    loops = {
        dtype: Loops(folder, dtype) for dtype in (("float32", "bfloat16") if bf16_is_fast("cpu") else ("float32",))
    }
    for one in loops.values():
        yield loop_case(one, found, MODEL_ROUNDS, best=True)
    if "bfloat16" in loops:
        wall = alternate({dtype: lambda one=one: one.ours(found) for dtype, one in loops.items()}, MODEL_ROUNDS)
        told = ", ".join(f"{dtype} {len(found) / taken:.1f}" for dtype, taken in wall.items())
        ratio = wall["float32"] / wall["bfloat16"]
        yield Case("encode", "bfloat16 against float32", ratio, 2.0, f"prompts/s of our loop: {told}")
    yield memory_case(folder, found)


def memory_case(folder: Path, found: Sequence[str]) -> Case:
    """The most memory of each loop, its model included, in a process of its own: float32, the usual one by ones."""
    peaks = {}
    for side in ("usual", "ours"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            peaks[side] = child.submit(peak_of, side, folder, found).result()
    told = ", ".join(f"{side} {peak / MIB:.0f} MiB" for side, peak in peaks.items())
    detail = f"{told}, model included; the usual loop has one prompt a batch; {len(found)} prompts, float32"
    ratio = SPARE * peaks["usual"] / peaks["ours"]
    return Case("encode", f"memory: {SPARE:g} times the usual loop's over ours", ratio, 1.0, detail)


def peak_of(side: str, folder: Path, found: Sequence[str]) -> int:
    """Bytes by which a loop with its model raises the anonymous memory of this process."""
    keep_freed_memory()
    before, loops = anonymous_bytes(), Loops(folder)
    return peak_anonymous(lambda: loops.ours(found) if side == "ours" else loops.usual(found, 1)) - before


def loop_case(loops: Loops, found: Sequence[str], rounds: int, best: bool = False) -> Case:
    """Prompts a second, ours over the usual loop's with like batches, or at its best; text to states on both sides."""
    lengths = [len(prompt.ids) for prompt in tokenize(loops.tokenizer, TEMPLATE, [{"text": t} for t in found], WINDOW)]
    mean = len(found) / sum(1 for _ in batches(lengths, BATCH_TOKENS))
    same = min(SIZES, key=lambda size: abs(size - mean))
    sides: dict[str, Callable[[], object]] = {f"{size}": lambda s=size: loops.usual(found, s) for size in SIZES}
    sides["ours"] = lambda: loops.ours(found)
    alternate({side: sides[side] for side in ("ours", f"{SIZES[0]}")}, 1)  # warm up
    speed = {side: len(found) / wall for side, wall in alternate(sides, rounds).items()}
    fastest = max(SIZES, key=lambda size: speed[f"{size}"])
    against, other = (fastest, same) if best else (same, fastest)
    like = "at its best" if best else "like batches"
    in_other = speed["ours"] / speed[f"{other}"]
    table = ", ".join(f"{size}: {speed[f'{size}']:.0f}" for size in SIZES)
    detail = (
        f"ours {speed['ours']:.0f} prompts/s with {mean:.1f} prompts a batch; usual loop by prompts a batch {table}; "
        f"the ratio is against {against} a batch; against {other} a batch it is {in_other:.2f}; "
        f"{len(found)} prompts of {sum(lengths) / len(found):.0f} tokens, {loops.dtype}, {torch.get_num_threads()} "
        f"threads, median of {rounds} alternating runs"
    )
    ratio = speed["ours"] / speed[f"{against}"]
    return Case("encode", f"our loop against the usual loop, {like}, {loops.dtype}", ratio, 2.0, detail)


def orchestrated_case(loops: Loops, found: Sequence[str]) -> Case:
    """Seconds a prompt between the shard borders nearest FEW and MANY, bare loop over the step `encode` on Ray."""
    bare, ray, start_up = [], [], []
    for _ in range(ROUNDS):
        bare.append(slope(marks := bare_marks(loops, found)))
        ray.append(slope(marks := orchestrated(REFERENCE, found, "ray")[0]))
        start_up.append(marks[0][1] - marks[0][0] * ray[-1])
    first, last = marks[0][0], marks[-1][0]
    detail = (
        f"bare loop {1e3 * median(bare):.2f} ms a prompt, step encode on Ray (one encoder, all cores; writing, "
        f"checksums and commit included) {1e3 * median(ray):.2f} ms, between {first:,} and {last:,} prompts of a run; "
        f"its start-up (Ray, worker, imports, model) {median(start_up):.1f} s; median of {ROUNDS} alternating runs"
    )
    return Case("encode", "orchestrated against bare loop", median(bare) / median(ray), 0.85, detail)


Marks = list[tuple[int, float]]  # (prompts done, wall seconds since the start)


def slope(marks: Marks) -> float:
    """Seconds a prompt between the first mark and the last."""
    return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])


def bare_marks(loops: Loops, found: Sequence[str]) -> Marks:
    """When our loop, without files and without Ray, had done FEW and all."""
    started, marks = time.perf_counter(), []
    loops.ours(found, lambda rows: marks.append((rows, time.perf_counter() - started)))
    return _few_and_all(marks)


def orchestrated(folder: Path, found: Sequence[str], executor: str) -> tuple[Marks, Tensor]:
    """When the step `encode` had done FEW and was committed, and the stored states. The texts are there before."""
    from orchestration.execution.scheduler import InlineEngine, run_plan
    from orchestration.graph import in_order
    from orchestration.ray_backend.engine import RayEngine
    from orchestration.runs.plan import make_plan
    from orchestration.store.artifacts import open_store
    from workflows.methods.inputs.states import read_states

    with TemporaryDirectory() as place:
        store, marks = open_store(Path(place) / "store"), []
        targets = [cell.score for cell in _comparison(Path(place), folder, found)]
        (step,) = [step for step in in_order(targets) if step.name == "encode"]  # `affinity` reads test rows alone
        ignore = lambda *_: None  # noqa: E731
        run_plan(make_plan(list(step.inputs.values()), store), lambda: InlineEngine(store, ignore), ignore)
        started = time.perf_counter()

        def emit(kind: str, _: Any, told: dict[str, Any]) -> None:
            rows = min(told["done"] * ROWS_PER_SHARD, len(found)) if kind == "shard" else len(found)
            if kind in ("shard", "ran"):
                marks.append((rows, time.perf_counter() - started))
            elif kind == "failed":
                raise RuntimeError(told["error"])

        engine = RayEngine if executor == "ray" else InlineEngine
        run_plan(make_plan([step], store), lambda: engine(store, emit), emit)
        states = read_states(store.find(step), "head")
    return _few_and_all(marks), states


def _few_and_all(marks: Marks) -> Marks:
    return [max((mark for mark in marks if mark[0] <= FEW + ROWS_PER_SHARD // 2), default=marks[0]), marks[-1]]


def _comparison(place: Path, folder: Path, found: Sequence[str]) -> list[Any]:
    """The graph of a workflow on these texts, labels made up: two classes in turn; in float32, as the loops are."""
    from orchestration.store.fingerprint_cache import FingerprintCache
    from workflows.compare.graph import comparison
    from workflows.config.compare import CompareConfig

    rows = [json.dumps({"text": text, "label": ("good", "bad")[i % 2]}) for i, text in enumerate(found)]
    (place / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    task = {
        "name": "timed",
        "source": {"train": "rows.jsonl", "test": "rows.jsonl"},
        "template": TEMPLATE,
        "words": {"good": "good", "bad": "bad"},
    }
    (place / "timed.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    (place / "model.yaml").write_text(json.dumps({"name": "timed", "folder": str(folder), "dtype": "float32"}))
    config = CompareConfig.model_validate(
        {
            "workflow": "compare",
            "models": ["model.yaml"],
            "tasks": ["timed.yaml"],
            "methods": ["affinity"],
            "encoding": {"store_dtype": "float32"},
            "execution": {"encoders": 1},
        }
    )
    return comparison(config, place, None, FingerprintCache(place / "facts.json"))
