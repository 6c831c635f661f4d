"""Rows read by a language model in this process, as its steps read them, without a file between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from orchestration.execution.work import callable_of
from orchestration.graph import Step
from orchestration.store.artifacts import Store
from workflows.extractors.base import Reader
from workflows.inputs.models import checked_tokenizer

Rows = Sequence[Mapping[str, str]]


def reader_of(encode: Step, store: Store, workers: dict[str, Any]) -> Reader:
    """What reads rows as a step stores them, each after its demonstrations where the step has some.

    `workers`: those that are loaded, by what they run and hold; steps of one model and one set of layers share it.
    """
    name = f"{encode.run} {sorted((encode.setup or {}).items())}"
    if name not in workers:
        workers[name] = callable_of(encode.run)(encode.setup)
    worker, before = workers[name], _before(encode.inputs.get("demonstrations"), store, workers)
    return lambda rows: worker.columns(encode.identity, rows, before(rows), encode.local)


def _before(demonstrations: Step | None, store: Store, workers: dict[str, Any]) -> Any:
    """What gives the text before each row's prompt."""
    if demonstrations is None:
        return lambda rows: None
    if demonstrations.identity["kind"] == "random":
        text = store.need(demonstrations).json("demonstrations.json")["text"]
        return lambda rows: [text] * len(rows)
    return partial(_retrieved, _retrieval(demonstrations, store), _states(demonstrations, store, workers))


def _retrieval(demonstrations: Step, store: Store) -> Any:
    from workflows.methods.inputs.demonstrations import Pool, Retrieval
    from workflows.methods.inputs.states import read_states

    identity, read = demonstrations.identity, demonstrations.inputs
    pool = Pool(store.need(read["train_texts"]), store.need(read["train_labels"]), identity)
    tokenizer = checked_tokenizer(Path(demonstrations.local["folder"]), identity["tokenizer"])
    dense = identity["kind"] == "dense"
    return Retrieval(pool, identity, tokenizer, read_states(store.need(read["train"]), "head") if dense else None)


def _states(demonstrations: Step, store: Store, workers: dict[str, Any]) -> Any:
    """What gives the states of bare prompts, by which the nearest are found; of other kinds nothing."""
    if demonstrations.identity["kind"] != "dense":
        return lambda rows: None
    import torch

    read = reader_of(demonstrations.inputs["test"], store, workers)
    return lambda rows: torch.from_numpy(read(rows)["head"]).float()


def _retrieved(retrieval: Any, states: Any, rows: Rows) -> list[str]:
    found = retrieval.taken(rows, states(rows))
    return ["".join(retrieval.texts[place] for place in places) for places, _ in found]
