"""Which prompts of a language model a method's states are of: bare ones, or prompts after demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from orchestration.graph import Step
from workflows.config.compare import CompareConfig
from workflows.config.task import TaskConfig
from workflows.errors import ConfigError
from workflows.inputs.catalog import Task
from workflows.inputs.models import Model
from workflows.inputs.tables import Split
from workflows.methods.resolved import ResolvedMethod
from workflows.steps.demonstrations import chosen_texts_step, random_step, retrieved_step
from workflows.steps.likelihoods import likelihoods_step
from workflows.steps.model import encode_step

_SPLITS: tuple[Split, Split] = ("train", "test")
_OF_PROMPTS = (*_SPLITS, "content_free")  # roles
_SPARE = 0.5  # of each class's rows, for a method that learns from rows beside the demonstrations (ours)


def check_suits(method: ResolvedMethod, model: str, kind: str, four_bit: bool) -> None:
    """Raises ConfigError for a model that the method cannot run under.

    Demonstrations need a causal model, and the weights of a quantised one cannot be trained.
    """
    instead = "Name the models it runs under in its `models`, or compare this model in a file without it."
    if method.demonstrations != "none" and kind != "causal":
        raise ConfigError(
            f"method {method.label!r} puts demonstrations before the prompt, which needs a causal model; "
            f"{model} is a {kind} one. {instead}"
        )
    if method.method.trains_model and four_bit:
        raise ConfigError(
            f"method {method.label!r} trains the model, and {model} is quantised to 4 bits, which cannot be finetuned "
            f"here. {instead}"
        )


def check_scores_words(method: ResolvedMethod, model: str, kind: str, task: TaskConfig) -> None:
    """Raises ConfigError where a method would score whole label words that it cannot."""
    if method.label_tokens(task) != "whole":
        return
    told = f"task {task.name!r}, method {method.label!r}: `label_tokens: whole` "
    if kind != "causal":
        raise ConfigError(
            f"{told}is the log-likelihood of a word after the prompt, which needs a causal model; {model} is a {kind} "
            "one. Take another label_tokens rule for it"
        )
    if method.config.layer != "head":
        raise ConfigError(f"{told}reads no stored layer, found layer: {method.config.layer}; leave it out")


def prompted(
    config: CompareConfig,
    method: ResolvedMethod,
    size: int | str,
    model: Model,
    task: Task,
    materials: Mapping[str, Step],
    seed: int,
) -> Mapping[str, Step]:
    """The steps a method may read, of prompts after demonstrations where it has some.

    A method that reads training rows gets them all; another, such as `icl`, the validation rows for its search.
    One that scores whole label words gets their log-likelihoods in place of states, and no head.
    """
    whole = method.label_tokens(task.config) == "whole"
    before = _demonstrations(config, method, size, model, task, materials, seed)
    if not before and not whole:
        return materials
    rows = {role: materials[role].inputs["texts"] for role in _OF_PROMPTS}
    if before:
        which: Literal["all", "validation"] = "all" if method.reads_training_rows else "validation"
        rows["train"] = chosen_texts_step(task, rows["train"], before["train"], which)
    step = likelihoods_step if whole else encode_step
    made = {
        role: step(model, task, rows[role], config.encoding, config.execution, before.get(role))
        for role in before or rows
    }
    others = {role: one for role, one in materials.items() if not (whole and role == "head")}
    return {**others, **made, **({"demonstrations": before["train"]} if before else {})}


def _demonstrations(
    config: CompareConfig,
    method: ResolvedMethod,
    size: int | str,
    model: Model,
    task: Task,
    materials: Mapping[str, Step],
    seed: int,
) -> dict[str, Step]:
    """What stands before the prompts of each role; empty: nothing."""
    kind = method.demonstrations
    if kind == "none":
        return {}
    draw = {"seed": seed, "train_size": size, "shots": method.config.shots}
    if kind == "random":
        # With all rows there are plenty, and the same demonstrations serve all methods.
        spare = _SPARE if method.reads_training_rows or size == "full" else 0.0
        shared = random_step(model, task, materials, {**draw, "spare": spare}, config.encoding)
        return dict.fromkeys(_OF_PROMPTS, shared)
    _check_store_the_head(kind, materials)
    return {split: retrieved_step(kind, model, task, split, materials, draw, config.encoding) for split in _SPLITS}


def _check_store_the_head(kind: str, materials: Mapping[str, Step]) -> None:
    """Raises ConfigError where nearest states are asked for in a space that is not stored."""
    if kind == "dense" and "head" not in materials["train"].identity["layers"]:
        raise ConfigError("dense demonstrations are the nearest by layer head; add it to encoding.layers")
