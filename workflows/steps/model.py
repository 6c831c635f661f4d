"""Steps on a language model: its output head, its rows for label words, and the hidden states of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step, called
from orchestration.store.files import json_bytes
from workflows.config.compare import Encoding, Execution
from workflows.config.layers import stored_layers
from workflows.config.task import prompt_template, row_tokens
from workflows.inputs.catalog import Task
from workflows.inputs.models import Model, check_unchanged, checked_tokenizer, token_limit
from workflows.inputs.tables import field_columns, row_names
from workflows.steps import HEAD_ROWS_PER_SHARD
from workflows.steps.code import code_of
from workflows.steps.demonstrations import texts_before, told_of
from workflows.steps.measures import largest, measured, numerics
from workflows.steps.states import BYTES, stored_states

if TYPE_CHECKING:
    from vocabsem_core.features.prompts import Prompt

_STORED = {"torch.float16": "float16"}  # other dtypes are stored as float32, which holds bfloat16 exactly


def head_step(model: Model) -> Step:
    """The rows of the LM head, without the padding of the vocabulary."""
    return Step(
        name="head",
        label=f"head {model.name}",
        version=1,
        run="workflows.steps.model:fill_head",
        identity={"head": model.head, "kept_rows": model.kept_rows, "rows_per_shard": HEAD_ROWS_PER_SHARD},
        local=model.files,
        cost="basis",
        files=model.paths,
        bytes=model.kept_rows * model.width * BYTES["float32"],
        sources=code_of(fill_head),
    )


def fill_head(work: StepContext) -> dict[str, float]:
    """Shards of row_id (the token id), weight [d], bias where there is one; head.json says what follows the product."""
    import torch

    from orchestration.store.arrow import table_of
    from vocabsem_core.features.architectures import scale_and_softcap
    from vocabsem_core.features.checkpoints import head_place, load_config

    folder, rows = Path(work.local["folder"]), work.identity["kept_rows"]
    check_unchanged(folder, work.local["stamp"], work.local["content"])
    place = head_place(folder)
    bias = place.read_bias(rows)
    start = 0
    with measured() as took:
        for shard, block in enumerate(place.blocks(rows, work.identity["rows_per_shard"])):
            stored = block.to(getattr(torch, _STORED.get(str(block.dtype), "float32")))
            columns = {"weight": stored.numpy()}
            if bias is not None:
                columns["bias"] = bias[start : start + len(block)].numpy()
            work.out.write_shard(shard, table_of(range(start, start + len(block)), columns))
            start += len(block)
            work.tell(start, rows, "rows")
    scale, softcap = scale_and_softcap(load_config(folder))
    work.out.write("head.json", json_bytes({"scale": scale, "softcap": softcap, "bias": bias is not None}))
    return took


def verbalizer_step(model: Model, task: Task) -> Step:
    """The vocabulary rows that stand for each label."""
    return Step(
        name="verbalizer",
        label=f"verbalizer {model.name} {task.config.name}",
        version=2,
        run="workflows.steps.model:fill_verbalizer",
        identity={
            "tokenizer": model.tokenizer,
            "template": prompt_template(task.config, model.kind),
            "words": [
                [label, word] for label, word in task.config.words.items()
            ],  # a list: the order of classes counts
            "label_tokens": row_tokens(task.config),
        },
        local={"folder": str(model.folder), "vocabulary": model.kept_rows},
        resources=Resources(cpus=0),  # reads a file; must not wait behind the encoder for a core
        files=model.paths,
        sources=code_of(fill_verbalizer),
    )


def fill_verbalizer(work: StepContext) -> None:
    """verbalizer.json: labels, their tokens, the rule, and each token as text."""
    from vocabsem_core.features.prompts import verbalize

    identity = work.identity
    tokenizer = checked_tokenizer(Path(work.local["folder"]), identity["tokenizer"])
    words, rule = dict(identity["words"]), identity["label_tokens"]
    found = verbalize(tokenizer, identity["template"], words, rule, work.local["vocabulary"])
    pieces = [[tokenizer.decode([token]) for token in tokens] for tokens in found.tokens]
    work.out.write("verbalizer.json", json_bytes({**asdict(found), "pieces": pieces}))


def embedding_step(model: Model, task: Task, verbalizer: Step) -> Step:
    """The input embedding's rows of the label tokens: a control for the place of the basis."""
    return Step(
        name="embedding",
        label=f"embedding {model.name} {task.config.name}",
        version=1,
        run="workflows.steps.model:fill_embedding",
        identity={"model": model.weights},
        inputs={"verbalizer": verbalizer},
        local=model.files,
        files=model.paths,
        sources=code_of(fill_embedding),
    )


def fill_embedding(work: StepContext) -> None:
    """One shard of row_id (the token id) and embedding [d], float32, of the label tokens class after class."""
    from orchestration.store.arrow import table_of
    from vocabsem_core.features.checkpoints import embedding_rows

    folder = Path(work.local["folder"])
    check_unchanged(folder, work.local["stamp"], work.local["content"])
    tokens = [token for of_label in work.inputs["verbalizer"].json("verbalizer.json")["tokens"] for token in of_label]
    work.out.write_shard(0, table_of(tokens, {"embedding": embedding_rows(folder, tokens).numpy()}))


def encode_step(
    model: Model,
    task: Task,
    texts: Step,
    encoding: Encoding,
    execution: Execution,
    demonstrations: Step | None = None,
) -> Step:
    """A split's hidden states, each prompt after its demonstrations where there are any."""
    layers, dtype = stored_layers(encoding.layers, model.layers), model.dtype(execution.gpus_per_encoder)
    subject = {
        "model": model.name,
        **texts.subject,
        **({"demonstrations": told_of(demonstrations)} if demonstrations else {}),
    }
    return Step(
        name="encode",
        label=f"encode {called(subject)}" + ("" if dtype == "float32" else f" in {dtype}"),
        version=1,
        run="workflows.steps.model:EncodeWorker",
        identity={
            "model": model.weights,
            "tokenizer": model.tokenizer,
            "template": prompt_template(task.config, model.kind),
            "max_tokens": token_limit(model.window, encoding),
            "dtype": dtype,
            "four_bit": model.four_bit,
            "store_dtype": encoding.store_dtype,
            "layers": layers,
            "position": {"causal": "last", "masked": "mask", "seq2seq": "decoder first"}[model.kind],
        },
        inputs={"texts": texts, **({"demonstrations": demonstrations} if demonstrations else {})},
        local={"batch_tokens": execution.batch_tokens, "vocabulary": model.kept_rows},
        setup={
            **model.files,
            "dtype": dtype,
            "four_bit": model.four_bit,
            "layers": layers,
            "spread": execution.spreads_layers,
        },
        resources=Resources(cpus=None, gpus=execution.gpus_per_encoder, workers=execution.encoders),
        cost="encode",
        files=model.paths,
        bytes=texts.local["rows"] * len(layers) * model.width * BYTES[encoding.store_dtype],
        less_memory="lower execution.batch_tokens",
        subject=subject,
        remarks="workflows.steps.remarks:cut_in_states",
        sources=code_of(EncodeWorker),
    )


class EncodeWorker:
    """Holds the model; fills one shard of states for each shard of texts, so that no batch crosses a shard's border."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        import torch

        from vocabsem_core.features.checkpoints import load_model, load_tokenizer
        from vocabsem_core.numerics.memory import keep_freed_memory

        keep_freed_memory()
        folder = Path(setup["folder"])
        check_unchanged(folder, setup["stamp"], setup["content"])
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = load_tokenizer(folder)
        place = "gpus" if setup["spread"] else self._device
        self._reader = self._reads(load_model(folder, setup["dtype"], place, setup["four_bit"]), setup)

    def _reads(self, model: Any, setup: Mapping[str, Any]) -> Any:
        """What reads prompts with a model."""
        from vocabsem_core.features.encoder import Encoder

        return Encoder(model, setup["layers"])

    def _prompts(self, identity: Mapping[str, Any], rows: Sequence[Mapping[str, str]], **told: Any) -> list[Any]:
        """The rows' prompts, which have at least ids and cut; what is `told` is of `tokenize`."""
        return prompts_of(self._tokenizer, identity, rows, **told)

    def _read(self, prompts: Sequence[Any], *how: Any) -> dict[str, Any]:
        """A column a layer; `how` is batch_tokens, after_batch, shared and known of `Encoder.encode`."""
        batch_tokens, *others = how
        ids, positions = [prompt.ids for prompt in prompts], [prompt.position for prompt in prompts]
        return self._reader.encode(ids, batch_tokens, positions, *others)

    def columns(
        self,
        identity: Mapping[str, Any],
        rows: Sequence[Mapping[str, str]],
        before: Sequence[str] | None,
        local: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The columns of some rows, as `fill` stores them, without a file; `before`: a text before each prompt."""
        import numpy as np

        prompts = self._prompts(identity, rows, before=before, vocabulary=local["vocabulary"])
        return {
            "cut": np.array([prompt.cut for prompt in prompts], dtype=np.int32),
            **_stored(self._read(prompts, local["batch_tokens"]), identity),
        }

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return len(work.inputs["texts"].manifest["shards"])

    def fill(self, work: StepContext, shard: int) -> None:
        """row_id and row_hash of the texts, tokens (of the prompt), cut (tokens truncated), and a column a layer."""
        import numpy as np

        from orchestration.store.arrow import ROW_ID, column_array, read_table, table_of
        from vocabsem_core.features.encoder import Encoded, common_prefix
        from vocabsem_core.numerics.matmul import float32_library
        from workflows.steps.open_shard import OpenShard

        texts, before = read_table(work.inputs["texts"].shard(shard)), None
        rows = column_array(texts, ROW_ID).tolist()
        if "demonstrations" in work.inputs:
            before = texts_before(work.inputs["demonstrations"], rows)
        told = {"before": before, "names": row_names(rows), "vocabulary": work.local["vocabulary"]}
        prompts = self._prompts(work.identity, field_columns(texts).to_pylist(), **told)
        ids = [prompt.ids for prompt in prompts]
        shared = common_prefix(ids) if before is not None else 0
        own = {"float32_products": float32_library()} if self._device == "cpu" else {}
        made = {**numerics(self._device), **own, "batch_tokens": work.local["batch_tokens"]}
        begun = OpenShard(work.scratch / "open" / str(shard), made)

        def after(batch: Encoded) -> None:
            begun.add(batch)
            work.report_alive(shard)
            tell(at_once=begun.rows == len(ids))

        def tell(at_once: bool) -> None:
            work.tell(begun.rows, work.inputs["texts"].rows, "rows", part=str(shard), at_once=at_once)

        tell(at_once=True)
        with measured() as took:
            try:
                states = self._read(prompts, work.local["batch_tokens"], after, shared, begun.known)
            except BaseException:  # Ctrl-C
                begun.save()
                tell(at_once=True)
                raise
        took["work_seconds"] = round(took["work_seconds"] + begun.seconds, 4)
        took |= largest(took, begun.peaks)
        columns = {
            "row_hash": column_array(texts, "row_hash"),
            "tokens": np.array([len(prompt.ids) for prompt in prompts], dtype=np.int32),
            "cut": np.array([prompt.cut for prompt in prompts], dtype=np.int32),
            **_stored(states, work.identity),
        }
        work.out.write_shard(shard, table_of(column_array(texts, ROW_ID), columns), made, took)
        begun.close()


def _stored(states: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    """A column a layer."""
    return {layer: stored_states(layer, found, identity["store_dtype"]) for layer, found in states.items()}


def prompts_of(
    tokenizer: Any,
    identity: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    before: Sequence[str] | None = None,
    **told: Any,
) -> list[Prompt]:
    """Rows as an `encode` step of these identity fields tokenises them, each after what stands `before` it.

    `told` are the names of rows in errors and the size of the model's vocabulary: see `tokenize`.
    """
    from vocabsem_core.features.prompts import tokenize

    ends = identity["position"] != "last"  # a causal model must not have read a closing token before it predicts
    return tokenize(tokenizer, identity["template"], rows, identity["max_tokens"], ends, before, **told)
