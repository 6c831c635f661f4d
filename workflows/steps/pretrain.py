"""Steps on the model: its training, and bits per byte of text it has not seen."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step
from orchestration.ray_backend.train import WorkerContext, run_workers, seats
from orchestration.store.artifacts import Artifact
from orchestration.store.files import json_bytes
from orchestration.store.scratch import StepProgress, tell
from workflows.config.pretrain import PretrainConfig
from workflows.errors import ConfigError
from workflows.inputs.corpus import MEASURED_PIECES, measured_pieces
from workflows.inputs.tables import fields_of
from workflows.steps.code import code_of
from workflows.steps.corpus import texts_of

if TYPE_CHECKING:
    from torch import Tensor

    from vocabsem_core.pretraining.trainer import Pretraining, Recipe

_STATE, _CURVE = "state.safetensors", "curve.json"  # of a checkpoint
CURVE = "curve.json"  # of the artifact
_FEWER_ROWS = "training.batch_tokens"


def pretrain_step(config: PretrainConfig, tokens: Step, tokenizer: Step) -> Step:
    """The trained model. Workers, precision and compilation are no part of it: results agree within rounding."""
    training, execution = config.training, config.execution
    steps = training.tokens // training.batch_tokens
    return Step(
        name="pretrain",
        label=f"pretrain {config.name}",
        version=1,
        run="workflows.steps.pretrain:fill_pretrain",
        identity={
            "recipe": {
                "vocabulary": config.vocabulary,
                **config.model.model_dump(),
                "batch_rows": training.batch_tokens // config.model.context,
                "steps": steps,
                "learning_rate": training.learning_rate,
                "warmup_steps": round(training.warmup * steps),
                "weight_decay": training.weight_decay,
                "seed": training.seed,
            },
            "stop_after": min(steps, training.stop_after or steps),
        },
        inputs={"tokens": tokens, "tokenizer": tokenizer},
        local=execution.model_dump(exclude={"address", "resources"}),
        resources=Resources(cpus=0, waits=True),  # the workers reserve cores and GPUs of their own
        workers=None
        if execution.executor == "inline"
        else Resources(execution.cores, execution.gpus, execution.workers),
        sources=code_of(fill_pretrain),
    )


def fill_pretrain(work: StepContext) -> None:
    """The files of a transformers model in float16, and the curve of its training."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from vocabsem_core.pretraining.trainer import Pretraining

    disable_progress_bar()
    recipe = _recipe(work.identity)
    tokens = work.inputs["tokens"]
    if not tokens.rows:
        raise ConfigError(f"the corpus fills no row of {recipe.context} tokens; give more text, or a smaller context")
    shards = [str(path) for path in tokens.shards()]
    local, alone = work.local, work.local["executor"] == "inline"
    workers, cores, gpus = (0, 1.0, 0.0) if alone else seats(local["workers"], local["cores"], local["gpus"])
    threads = None if alone else max(1, int(cores))
    config = {"identity": dict(work.identity), "shards": shards, "local": dict(local), "threads": threads}
    last = run_workers("workflows.steps.pretrain:train", config, work.scratch, workers, cores, gpus, _FEWER_ROWS)
    training = Pretraining(recipe, 0, 1, torch.device("cpu"), bf16=False, compiled=False)
    training.load(last / _STATE)
    with TemporaryDirectory() as folder:
        training.model.eval().half().save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            work.out.write(path.name, path.read_bytes())
    work.out.write(CURVE, (last / _CURVE).read_bytes())


def _recipe(identity: Mapping[str, Any]) -> Recipe:
    from vocabsem_core.pretraining.trainer import Recipe

    return Recipe(**identity["recipe"])


def train(seat: WorkerContext, config: Mapping[str, Any]) -> None:
    """One worker's part of a training: steps until the last, from the last checkpoint on."""
    import torch

    from vocabsem_core.numerics.matmul import bf16_is_fast
    from vocabsem_core.numerics.memory import keep_freed_memory
    from vocabsem_core.pretraining.trainer import Pretraining, rows_of_step

    if config["threads"] is not None:
        torch.set_num_threads(config["threads"])
    keep_freed_memory()
    local, recipe, last = config["local"], _recipe(config["identity"]), config["identity"]["stop_after"]
    device = torch.device(seat.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    bf16 = local["precision"] == "bfloat16" or (local["precision"] == "auto" and bf16_is_fast(device.type))
    training = Pretraining(recipe, seat.rank, seat.world, device, bf16, local["compile"])
    curve: dict[str, list[float]] = {"loss": [], "learning_rate": [], "tokens_per_second": []}
    if seat.checkpoint is not None:
        training.load(seat.checkpoint / _STATE)
        curve = json.loads((seat.checkpoint / _CURVE).read_text(encoding="utf-8"))
    rows = TokenRows(config["shards"])
    while training.step < last:
        step, started = training.step, time.monotonic()
        loss = training.advance(rows[rows_of_step(recipe, step, len(rows))])
        seconds = time.monotonic() - started
        if loss != loss:
            raise ConfigError(f"step {step}: the loss is not a number; lower training.learning_rate")
        speed = recipe.batch_rows * recipe.context / seconds
        for name, value in (
            ("loss", loss),
            ("learning_rate", recipe.rate(step)),
            ("tokens_per_second", round(speed, 1)),
        ):
            curve[name].append(value)
        if seat.rank == 0:
            tell(seat.scratch, StepProgress(training.step, last, "steps", _note(curve)))
        if training.step % local["checkpoint_steps"] == 0 or training.step == last:
            seat.keep(partial(_save, training, curve))


def _save(training: Pretraining, curve: Mapping[str, Any], folder: Path) -> None:
    training.save(folder / _STATE)
    (folder / _CURVE).write_bytes(json_bytes(dict(curve)))


def _note(curve: Mapping[str, list[float]]) -> str:
    recent = curve["tokens_per_second"][-20:]
    speed = len(recent) / sum(1 / value for value in recent)
    return f"loss {sum(curve['loss'][-20:]) / len(recent):.3f}, {speed:,.0f} tokens/s"


class TokenRows:
    """All rows of the token shards, [rows, context + 1], read where they lie: a node's workers share those pages."""

    def __init__(self, shards: list[str]) -> None:
        import numpy as np

        from orchestration.store.arrow import column_array, read_table

        self._shards = [column_array(read_table(Path(path)), "tokens") for path in shards]
        self._starts = np.cumsum([0, *map(len, self._shards)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows by their numbers, int64."""
        import numpy as np
        import torch

        shards = np.searchsorted(self._starts, rows.numpy(), side="right") - 1
        found = [self._shards[shard][row - self._starts[shard]] for shard, row in zip(shards, rows, strict=True)]
        return torch.from_numpy(np.stack(found)).long()


def bits_step(name: str, label: str, model: Step, tokenizer: Step, texts: Step) -> Step:
    """Bits per byte of texts the model has not seen: the held-out side of a corpus, or the texts of a task."""
    return Step(
        name="bits",
        label=f"bits {name} {label}",
        version=1,
        run="workflows.steps.pretrain:fill_bits",
        identity={"pieces": MEASURED_PIECES} if texts.name == "corpus" else {},
        inputs={"model": model, "tokenizer": tokenizer, "texts": texts},
        resources=Resources(gpus=None),
        sources=code_of(fill_bits),
    )


def fill_bits(work: StepContext) -> None:
    """bits.json: bits per byte of all texts together, with its interval; one shard: bits and bytes of each text."""
    import numpy as np
    import torch

    from orchestration.store.arrow import table_of
    from vocabsem_core.features.checkpoints import load_model, load_tokenizer
    from vocabsem_core.numerics.ticks import listening
    from vocabsem_core.pretraining.bits_per_byte import per_byte, text_bits

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with TemporaryDirectory() as folder:
        copy_model(work.inputs["model"], work.inputs["tokenizer"], Path(folder))
        model, tokenizer = load_model(Path(folder), "float32", device), load_tokenizer(Path(folder))
    texts = _texts(work.inputs["texts"])
    with listening(work.tell):
        bits = text_bits(model, tokenizer, texts)
    sizes = np.array([len(text.encode()) for text in texts])
    work.out.write_shard(0, table_of(range(len(texts)), {"bits": bits, "bytes": sizes}))
    mean, low, high = per_byte(bits, sizes)
    weights = sum(parameter.numel() for parameter in model.parameters())
    work.out.write(
        "bits.json", json_bytes({"mean": mean, "low": low, "high": high, "n_test": len(texts), "weights": weights})
    )


def _texts(source: Artifact) -> list[str]:
    """Held-out pieces of a corpus; of a task's rows the fields, a line each."""
    if source.manifest["step"] == "corpus":
        return measured_pieces(list(texts_of(source, held_out=True)))
    return ["\n".join(fields.values()) for fields in fields_of(source)]


def copy_model(model: Artifact, tokenizer: Artifact, folder: Path) -> None:
    """The files that transformers loads, checked, from their two artifacts into one folder."""
    for name, artifact in model_files(model, tokenizer).items():
        (folder / name).write_bytes(artifact.path(name).read_bytes())


def model_files(model: Artifact, tokenizer: Artifact) -> dict[str, Artifact]:
    """Name of every file that transformers loads -> the artifact that has it."""
    own = ("identity.json", "provenance.json", CURVE)
    return {name: made for made in (model, tokenizer) for name in made.manifest["files"] if name not in own}
