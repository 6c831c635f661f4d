"""What steps tell a reader of results, once they are made: prompts that did not fit the window, and small classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestration.graph import Step, canonical
from orchestration.store.artifacts import Artifact

_READING = ("model", "tokenizer", "template", "max_tokens")  # by which a model reads texts


def cut_in_states(step: Step, artifact: Artifact) -> dict[str, str]:
    """Of hidden states: what tells one reading of texts from another -> the line for a person."""
    from orchestration.store.arrow import column_array, read_table

    cuts = [column_array(read_table(path), "cut") for path in artifact.shards()]
    prompts, tokens = (sum(int(part.sum()) for part in parts) for parts in ([cut > 0 for cut in cuts], cuts))
    found = {"rows": artifact.rows, "prompts": prompts, "tokens": tokens}
    return _line(step, "texts", step.identity, found, step.label)


def smaller_classes(step: Step, artifact: Artifact) -> dict[str, str]:
    """A line for each label that has fewer training rows than the training size asks for."""
    from workflows.inputs.labels import smaller_label

    found = artifact.json("fit.json").get("smaller_classes", {})
    train = next((step.inputs[role] for role in ("train", "train_texts") if role in step.inputs), None)
    task, size = train.subject["task"] if train is not None else "", step.identity.get("train_size", "")
    return {
        f"{task} {size} {name}": f"task {task}: {smaller_label(name, count, size)}" for name, count in found.items()
    }


def of_finetuning(step: Step, artifact: Artifact) -> dict[str, str]:
    """Of a fit that trains the language model, which reads two splits."""
    lines = smaller_classes(step, artifact)
    for role, found in artifact.json("fit.json")["cut"].items():
        lines |= _line(step, role, step.identity["reading"], found, f"{step.label}, {step.inputs[role].label}")
    return lines


def _line(step: Step, role: str, reading: Mapping[str, Any], found: Mapping[str, int], where: str) -> dict[str, str]:
    """Nothing where no prompt was cut. `found`: rows, prompts that were cut, and tokens that they lost."""
    if not found["prompts"]:
        return {}
    before = step.inputs.get("demonstrations")
    same = canonical([step.inputs[role].key, before and before.key, *(reading[name] for name in _READING)])
    told = f"{found['prompts']} of {found['rows']} prompts cut to {reading['max_tokens']} tokens"
    return {same: f"{where}: {told} ({found['tokens']} text tokens removed)"}
