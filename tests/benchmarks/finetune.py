"""LoRA: our trainer against a plain peft script with transformers' Trainer, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.common import MIB, REFERENCE, Case, anonymous_bytes, peak_anonymous
from vocabsem_core.features.checkpoints import load_model, load_tokenizer
from vocabsem_core.features.prompts import tokenize
from vocabsem_core.finetuning.adapters import Adaptation, adapted
from vocabsem_core.finetuning.trainer import Classifier, Finetuning, Prompts, Schedule
from vocabsem_core.numerics.memory import keep_freed_memory

TEMPLATE, WINDOW = "Input: {text}\nType:", 512
SIZES = (4, 8, 16)  # rows a step, tried for the usual way; ours has the last
HOW = Adaptation("lora", rank=8, alpha=16.0)  # of the layers that peft takes for the family
RATE, EPOCHS, SEED = 1e-3, 1, 0
TRAIN, TEST = 128, 128
SPARE = 1.1  # times the usual way's memory


@dataclass(frozen=True)
class Job:
    """What both sides learn: prompts, class numbers, and the token of each class, under the model of a folder."""

    folder: Path
    prompts: list[list[int]]
    labels: list[int]
    tokens: list[int]
    test: list[list[int]]


@dataclass(frozen=True)
class Made:
    """What came of a side: seconds of training, bytes by which memory rose, and predictions of the test rows."""

    seconds: float
    peak: int
    predictions: list[int]


def cases(data_dir: Path | None = None, model: Path | None = None) -> Iterator[Case]:
    """Speed, score and memory, on rows of agnews or of the starter task topics, under a model folder in float32."""
    job, wanted = job_of(model or REFERENCE, data_dir, TRAIN, TEST)
    yield from lora_cases(job, wanted, SIZES)


def job_of(folder: Path, data_dir: Path | None, train: int, test: int) -> tuple[Job, list[int]]:
    """The job, and the class numbers of its test rows."""
    place = (data_dir / "agnews") if data_dir else REFERENCE.parents[1] / "starter" / "topics"
    parts = {split: _rows(place / f"{split}.jsonl", rows) for split, rows in (("train", train), ("test", test))}
    names, tokenizer = sorted({row["label"] for part in parts.values() for row in part}), load_tokenizer(folder)
    numbers = {split: [names.index(row["label"]) for row in part] for split, part in parts.items()}
    ids = {split: [found.ids for found in tokenize(tokenizer, TEMPLATE, part, WINDOW)] for split, part in parts.items()}
    tokens = [tokenizer(f" {name}", add_special_tokens=False).input_ids[0] for name in names]
    return Job(folder, ids["train"], numbers["train"], tokens, ids["test"]), numbers["test"]


def _rows(path: Path, count: int) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return rows[:: max(1, len(rows) // count)][:count]


def lora_cases(job: Job, wanted: Sequence[int], sizes: Sequence[int]) -> Iterator[Case]:
    """Ours against the usual way at its fastest batch size."""
    theirs = {size: _alone(usual, job, size) for size in sizes}
    mine = _alone(ours, job, sizes[-1])
    best = min(sizes, key=lambda size: theirs[size].seconds)
    speed = {f"{size} a step": len(job.labels) * EPOCHS / made.seconds for size, made in theirs.items()}
    told = ", ".join(f"{name} {found:.2f}" for name, found in speed.items())
    detail = (
        f"rows/s: ours {len(job.labels) * EPOCHS / mine.seconds:.2f} with {sizes[-1]} a step; peft and Trainer {told}; "
        f"{len(job.labels)} rows of {sum(map(len, job.prompts)) / len(job.prompts):.0f} tokens, LoRA of rank "
        f"{HOW.rank}, float32, {torch.get_num_threads()} threads"
    )
    yield Case("finetune", "our trainer against Trainer at its best", theirs[best].seconds / mine.seconds, 1.0, detail)
    same = theirs[sizes[-1]]
    yield score_case(mine.predictions, same.predictions, wanted)
    told = f"ours {mine.peak / MIB:.0f} MiB, Trainer {same.peak / MIB:.0f} MiB, model included, {sizes[-1]} a step"
    yield Case("finetune", f"memory: {SPARE:g} times Trainer's over ours", SPARE * same.peak / mine.peak, 1.0, told)


def score_case(mine: Sequence[int], theirs: Sequence[int], wanted: Sequence[int]) -> Case:
    """Whether our score is within the interval of the difference, by a bootstrap over the test rows."""
    right = [torch.tensor(found) == torch.tensor(wanted) for found in (mine, theirs)]
    apart = right[0].double() - right[1].double()
    drawn = apart[torch.randint(len(apart), (2000, len(apart)), generator=torch.Generator().manual_seed(0))].mean(dim=1)
    low, high = drawn.quantile(0.025).item(), drawn.quantile(0.975).item()
    detail = (
        f"accuracy ours {right[0].double().mean():.3f}, Trainer {right[1].double().mean():.3f} with as many rows a "
        f"step; difference {low:+.3f} to {high:+.3f} (95 % bootstrap over {len(wanted)} test rows)"
    )
    return Case("finetune", "score: 1 where ours is not below", float(high >= 0), 1.0, detail)


def _alone(side: Any, job: Job, size: int) -> Made:
    """A side in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
        return child.submit(_measured, side, job, size).result()


def _measured(side: Any, job: Job, size: int) -> Made:
    before, found = anonymous_bytes(), []
    peak = peak_anonymous(lambda: found.append(side(job, size))) - before
    seconds, predictions = found[0]
    return Made(seconds, peak, predictions)


def ours(job: Job, size: int) -> tuple[float, list[int]]:
    """Our trainer, as the step `finetune` has it; seconds of the training alone, and predictions."""
    keep_freed_memory()
    model = load_model(job.folder, "float32", "cpu").requires_grad_(False)
    classifier = Classifier(model, [[token] for token in job.tokens], bf16=False)
    schedule = Schedule(RATE, 0.0, 0.0, size, EPOCHS, EPOCHS)
    train, first = (_prompts(job.prompts), torch.tensor(job.labels)), torch.tensor([0])
    with adapted(model, HOW, SEED) as weights:
        fit = Finetuning(classifier, weights, train, (train[0][first], train[1][first]), schedule, SEED)
        started = time.perf_counter()
        while not fit.over:
            fit.epoch()
        seconds = time.perf_counter() - started
        return seconds, classifier.scores(_prompts(job.test)).argmax(dim=1).tolist()


def _prompts(ids: Sequence[list[int]]) -> Prompts:
    return Prompts(ids, [len(one) - 1 for one in ids])


def usual(job: Job, size: int) -> tuple[float, list[int]]:
    """The usual script: the label's token after each prompt, the model's own loss, padded batches."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    model = load_model(job.folder, "float32", "cpu")
    torch.manual_seed(SEED)
    transposed = model.config.model_type == "gpt2"
    config = LoraConfig(r=HOW.rank, lora_alpha=int(HOW.alpha), task_type="CAUSAL_LM", fan_in_fan_out=transposed)
    wrapped: Any = get_peft_model(model, config)
    rows = [
        {"input_ids": [*ids, job.tokens[label]], "labels": [*(-100 for _ in ids), job.tokens[label]]}
        for ids, label in zip(job.prompts, job.labels, strict=True)
    ]
    with TemporaryDirectory() as folder:
        how = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=size,
            num_train_epochs=EPOCHS,
            learning_rate=RATE,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            seed=SEED,
        )
        trainer = Trainer(model=wrapped, args=how, train_dataset=rows, data_collator=padded)  # type: ignore[arg-type]
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return seconds, _predicted(wrapped.eval(), job, size)


def padded(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """A batch, padded on the right."""
    longest = max(len(row["input_ids"]) for row in rows)

    def of(name: str, filler: int) -> Tensor:
        return torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])

    mask = torch.tensor([[place < len(row["input_ids"]) for place in range(longest)] for row in rows]).long()
    return {"input_ids": of("input_ids", 0), "labels": of("labels", -100), "attention_mask": mask}


@torch.inference_mode()
def _predicted(model: Any, job: Job, size: int) -> list[int]:
    found = []
    for start in range(0, len(job.test), size):
        rows = [{"input_ids": ids, "labels": ids} for ids in job.test[start : start + size]]
        batch = padded(rows)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        last = logits[torch.arange(len(rows)), batch["attention_mask"].sum(dim=1) - 1]
        found += last[:, job.tokens].argmax(dim=1).tolist()
    return found
