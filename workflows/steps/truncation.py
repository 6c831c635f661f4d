"""What steps that read prompts tell of those that did not fit the window, once they are made."""

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


def cut_in_training(step: Step, artifact: Artifact) -> dict[str, str]:
    """Of a fit that trains the language model, which reads two splits."""
    lines: dict[str, str] = {}
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
