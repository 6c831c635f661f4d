"""Steps on the rows that stand before a prompt, and on the rows that are then encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step, called
from orchestration.store.files import json_bytes
from workflows.config.compare import Encoding
from workflows.config.task import prompt_template
from workflows.errors import ConfigError
from workflows.inputs.catalog import Task
from workflows.inputs.models import Model, checked_tokenizer, token_limit
from workflows.inputs.tables import Split, fields_of
from workflows.steps import ROWS_PER_SHARD
from workflows.steps.code import code_of
from workflows.steps.measures import measured

if TYPE_CHECKING:
    from orchestration.store.artifacts import Artifact

_MASK = "[MASK]"
_BUDGET = "as encoding.demonstration_tokens: {} limits them"
CONTENT_FREE = ("N/A", "", _MASK)  # the texts of contextual calibration (Zhao et al. 2021)
_LIGHT = Resources(cpus=0)


def random_step(
    model: Model, task: Task, inputs: Mapping[str, Step], draw: Mapping[str, Any], encoding: Encoding
) -> Step:
    """Class-balanced demonstrations, the same for all prompts; no row to be predicted has a say in them.

    Args:
        inputs: train_rows and train_labels.
        draw: seed, train_size, shots (a class, at most), and spare: the share of each class's rows that stays free.
    """
    subject = {"model": model.name, "task": task.config.name, "demonstrations": f"random seed {draw['seed']}"}
    return Step(
        name="demonstrations",
        label=f"demonstrations {called(subject)}",
        version=1,
        run="workflows.steps.demonstrations:fill_random",
        identity={"kind": "random", **_prompts(model, task, encoding), **draw},
        inputs={"train_texts": inputs["train_rows"], "train_labels": inputs["train_labels"]},
        local={"folder": str(model.folder), "task": task.config.name},
        resources=_LIGHT,
        cost="encode",
        files=model.paths,
        subject=subject,
        remarks="workflows.steps.demonstrations:limited",
        sources=code_of(fill_random),
    )


def _prompts(model: Model, task: Task, encoding: Encoding) -> dict[str, Any]:
    """What decides how many tokens a demonstration takes, and how many there are.

    The budget is left out where the window holds no more: there it decides nothing.
    """
    limit, budget = token_limit(model.window, encoding), encoding.demonstration_tokens
    assert limit is not None, "of a model whose window is unknown, `check_encoding` asks for encoding.max_tokens"
    return {
        "tokenizer": model.tokenizer,
        "template": prompt_template(task.config, model.kind),
        "words": [[label, word] for label, word in task.config.words.items()],
        "max_tokens": limit,
        **({"demonstration_tokens": budget} if budget < limit else {}),
    }


def limited(step: Step, artifact: Artifact) -> dict[str, str]:
    """What the budget of tokens left out -> the line for a person."""
    from workflows.methods.inputs.states import DEMONSTRATIONS

    told = artifact.json(DEMONSTRATIONS).get("limited")
    identity = step.identity
    return {step.key: f"{step.label}: {told}; the window holds {identity['max_tokens']:,}"} if told else {}


def fill_random(work: StepContext) -> dict[str, float]:
    """demonstrations.json: shots, the text before every prompt, its row ids, those left for training, for validation.

    Raises ConfigError for a label with too few rows, and where one demonstration of each label does not fit.
    """
    from workflows.methods.inputs.states import DEMONSTRATIONS

    tokenizer = checked_tokenizer(Path(work.local["folder"]), work.identity["tokenizer"])
    with measured() as took:
        work.out.write(DEMONSTRATIONS, json_bytes(_drawn(work, tokenizer)))
    return took


def _drawn(work: StepContext, tokenizer: Any) -> dict[str, Any]:
    from vocabsem_core.baselines.demonstrations import balanced, demonstration, shots_that_fit
    from workflows.methods.inputs.demonstrations import Pool

    identity = work.identity
    pool = Pool(work.inputs["train_texts"], work.inputs["train_labels"], identity)
    rarest = min(map(len, pool.by_class))
    most = min(identity["shots"], rarest - math.ceil(identity["spare"] * rarest))
    if most < 1:
        raise ConfigError(
            f"task {work.local['task']!r}: a label has {rarest} training row, validation rows not counted; one is "
            "needed as a demonstration and another to learn from. Raise train_size, or add rows."
        )
    drawn = {shots: balanced(pool.by_class, shots, identity["seed"]) for shots in range(1, most + 1)}
    words = [word for _, word in identity["words"]]

    def text(shots: int) -> str:
        return "".join(
            demonstration(identity["template"], pool.rows[row], words[pool.labels[row]]) for row in drawn[shots]
        )

    prompts = [pool.rows[row] for row in [*pool.train, *pool.validation]]
    limit, budget = identity["max_tokens"], identity.get("demonstration_tokens")
    shots, tokens = shots_that_fit(tokenizer, identity["template"], prompts, limit, text, most, budget)
    beyond = budget is not None and tokens > budget
    if shots == 0 and beyond:
        raise ConfigError(
            f"task {work.local['task']!r}: one demonstration of each of its {len(words)} labels takes {tokens} tokens, "
            f"more than encoding.demonstration_tokens ({budget}). Raise it, or take demonstrations: bm25, which need "
            "not be of every label."
        )
    if shots == 0:
        raise ConfigError(
            f"task {work.local['task']!r}: one demonstration of each of its {len(words)} labels takes {tokens} tokens; "
            f"with a window of {limit} more than 1 prompt in 20 would be cut. Raise encoding.max_tokens if that is "
            "what limits, take a model with a larger window, or demonstrations: bm25, which need not be of every label."
        )
    used = set(drawn[shots])
    return {
        "shots": shots,
        **({"limited": f"{shots} rows per class, {_BUDGET.format(budget)}"} if beyond else {}),
        "text": text(shots),
        "rows": [int(pool.ids[row]) for row in drawn[shots]],
        "train": [int(pool.ids[row]) for row in pool.train if row not in used],
        "validation": [int(pool.ids[row]) for row in pool.validation],
    }


def retrieved_step(
    kind: Literal["bm25", "dense"],
    model: Model,
    task: Task,
    split: Split,
    inputs: Mapping[str, Step],
    draw: Mapping[str, Any],
    encoding: Encoding,
) -> Step:
    """For each prompt of a split the training rows nearest to it, by words or by state.

    Args:
        inputs: train_rows and train_labels; for the test split test_rows; for `dense` train and test, the states of
            bare prompts.
        draw: seed, train_size, and shots (a class, at most, on average).
    """
    told = kind if draw["train_size"] == "full" else f"{kind} seed {draw['seed']}"
    subject = {"model": model.name, "task": task.config.name, "split": split, "demonstrations": told}
    splits: set[Split] = {"train", split}
    read = {"train_labels": inputs["train_labels"], **{f"{one}_texts": inputs[f"{one}_rows"] for one in splits}}
    states = {one: inputs[one] for one in splits if kind == "dense"}
    return Step(
        name="demonstrations",
        label=f"demonstrations {called(subject)}",
        version=2,  # 2: of equally near states the first
        run="workflows.steps.demonstrations:fill_retrieved",
        identity={"kind": kind, "split": split, **_prompts(model, task, encoding), **draw},
        inputs=dict(sorted((read | states).items())),
        local={"folder": str(model.folder), "task": task.config.name},
        resources=Resources(cpus=1),
        cost="encode",
        files=model.paths,
        subject=subject,
        remarks="workflows.steps.demonstrations:limited",
        sources=code_of(fill_retrieved),
    )


def fill_retrieved(work: StepContext) -> dict[str, float]:
    """demonstrations.json: for each row its demonstrations, the nearest last, and their texts; training and validation.

    Raises ConfigError for a label with too few rows, and where no demonstration fits before any prompt.
    """
    import vocabsem_core.baselines.bm25
    import vocabsem_core.baselines.knn  # noqa: F401  imports are no part of what is measured
    from workflows.methods.inputs.states import DEMONSTRATIONS

    tokenizer = checked_tokenizer(Path(work.local["folder"]), work.identity["tokenizer"])
    with measured() as took:
        work.out.write(DEMONSTRATIONS, json_bytes(_retrieved(work, tokenizer)))
    return took


def _retrieved(work: StepContext, tokenizer: Any) -> dict[str, Any]:
    from orchestration.store.arrow import ROW_ID
    from workflows.methods.inputs.demonstrations import Pool, Retrieval
    from workflows.methods.inputs.states import read_column, read_states

    identity, inputs = work.identity, work.inputs
    pool = Pool(inputs["train_texts"], inputs["train_labels"], identity)
    known = read_states(inputs["train"], "head") if identity["kind"] == "dense" else None
    retrieval = Retrieval(pool, identity, tokenizer, known)
    themselves: list[int] | None = None
    if identity["split"] == "test":
        rows, ids = fields_of(inputs["test_texts"]), read_column(inputs["test_texts"], ROW_ID)
        states = read_states(inputs["test"], "head") if known is not None else None
    else:
        themselves = list(dict.fromkeys([*pool.train.tolist(), *pool.validation.tolist()]))
        rows, ids = [pool.rows[row] for row in themselves], pool.ids[themselves]
        states = known[themselves] if known is not None else None
    before: dict[str, list[int]] = {}
    used: set[int] = set()
    beyond = 0
    for row, (taken, limited) in zip(ids, retrieval.taken(rows, states, themselves), strict=True):
        beyond += limited
        used.update(taken)
        before[str(row)] = [int(pool.ids[retrieval.from_rows[place]]) for place in taken]
    if not used:
        raise ConfigError(
            f"task {work.local['task']!r}: no demonstration fits before any prompt: the shortest takes "
            f"{min(retrieval.costs)} tokens, the shortest prompt {min(retrieval.counts(rows))}, the window holds "
            f"{identity['max_tokens']}. Raise encoding.max_tokens or encoding.demonstration_tokens if that is what "
            "limits, or take a model with a larger window."
        )
    fewer = f"fewer rows before {beyond} of {len(rows)} prompts, {_BUDGET.format(retrieval.budget)}"
    return {
        **({"limited": fewer} if beyond else {}),
        "before": before,
        "texts": {str(pool.ids[retrieval.from_rows[place]]): retrieval.texts[place] for place in sorted(used)},
        "train": [int(pool.ids[row]) for row in pool.train],
        "validation": [int(pool.ids[row]) for row in pool.validation],
    }


def texts_before(demonstrations: Artifact, ids: list[int]) -> list[str]:
    """The text before each row's prompt, by row id."""
    from workflows.methods.inputs.states import DEMONSTRATIONS

    found = demonstrations.json(DEMONSTRATIONS)
    if "text" in found:
        return [found["text"]] * len(ids)
    return ["".join(found["texts"][str(one)] for one in found["before"][str(row)]) for row in ids]


def told_of(demonstrations: Step) -> str:
    """What other steps are told of demonstrations: their kind, and the seed where it matters."""
    return demonstrations.subject["demonstrations"]


def chosen_texts_step(task: Task, texts: Step, demonstrations: Step, which: Literal["all", "validation"]) -> Step:
    """Of the training texts those that a method with demonstrations reads: all but these, or the validation rows."""
    split = "train" if which == "all" else "validation"
    subject = {"task": task.config.name, "split": split, "demonstrations": told_of(demonstrations)}
    return Step(
        name="texts",
        label=f"texts {called(subject)}",
        version=1,
        run="workflows.steps.demonstrations:fill_chosen_texts",
        identity={"which": which, "rows_per_shard": ROWS_PER_SHARD},
        inputs={"texts": texts, "demonstrations": demonstrations},
        local={"rows": texts.local["rows"]},  # before they are chosen: never too few
        resources=_LIGHT,
        subject=subject,
        sources=code_of(fill_chosen_texts),
    )


def fill_chosen_texts(work: StepContext) -> None:
    """Shards as the given texts have them, with the chosen rows alone."""
    import numpy as np
    import pyarrow as pa

    from orchestration.store.arrow import ROW_ID
    from workflows.methods.inputs.states import DEMONSTRATIONS, read_tables

    listed, size = work.inputs["demonstrations"].json(DEMONSTRATIONS), work.identity["rows_per_shard"]
    wanted = listed["validation"] + (listed["train"] if work.identity["which"] == "all" else [])
    whole = pa.concat_tables(read_tables(work.inputs["texts"])).combine_chunks()
    kept = whole.filter(np.isin(whole.column(ROW_ID).to_numpy(), wanted))
    for shard, start in enumerate(range(0, kept.num_rows, size)):
        work.out.write_shard(shard, kept.slice(start, size).combine_chunks())


def content_free_step(task: Task, kind: str) -> Step:
    """Content-free texts, in every field. To a masked model a mask would say where to predict: it has none."""
    texts = [text for text in CONTENT_FREE if kind != "masked" or text != _MASK]
    subject = {"task": task.config.name, "split": "content-free"}
    return Step(
        name="texts",
        label=f"texts {called(subject)}",
        version=1,
        run="workflows.steps.demonstrations:fill_content_free",
        identity={"fields": sorted(task.config.source.columns), "texts": texts},
        local={"rows": len(texts)},
        resources=_LIGHT,
        subject=subject,
        sources=code_of(fill_content_free),
    )


def fill_content_free(work: StepContext) -> None:
    """One shard of row_id, row_hash and the fields."""
    from orchestration.store.arrow import table_of
    from workflows.inputs.tables import row_hash

    fields, texts = work.identity["fields"], work.identity["texts"]
    hashes = [row_hash(dict.fromkeys(fields, text)) for text in texts]
    columns = {"row_hash": hashes, **{field: list(texts) for field in fields}}
    work.out.write_shard(0, table_of(range(len(texts)), columns))
