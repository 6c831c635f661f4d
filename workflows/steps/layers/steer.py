"""The step that moves states on their way through the model, and counts how often its prediction follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.files import json_bytes
from workflows.config.layer_study import LayersConfig
from workflows.inputs.models import Model
from workflows.steps.code import code_of
from workflows.steps.measures import measured

if TYPE_CHECKING:
    from torch import Tensor

STEERING = "steering.json"
_SAME_ROWS = {"affine": "head"}  # the map is of states: its rows are the head's


def steering_step(
    config: LayersConfig, model: Model, layers: Sequence[str], labels: Sequence[str], materials: Mapping[str, Step]
) -> Step:
    """Moves along basis(target) - basis(predicted), and along random directions of the same length."""
    encode, subject = materials["test"], materials["test"].subject
    read = ("model", "tokenizer", "template", "max_tokens", "position")
    return Step(
        name="steering",
        label=f"steering {model.name} {subject['task']}",
        version=1,
        run="workflows.steps.layers.steer:fill_steering",
        identity={
            **{name: encode.identity[name] for name in read},
            "kept_rows": model.kept_rows,
            "labels": list(labels),
            "bases": list(dict.fromkeys(_SAME_ROWS.get(basis, basis) for basis in config.bases)),
            "layers": list(layers),
            "rows": config.steering.rows,
            "length": config.steering.length,
            "seed": config.seed,
        },
        inputs={role: materials[role] for role in ("test_rows", "verbalizer", "spectrum")},
        local={**model.files, "kept_rows": model.kept_rows},
        cost="fit",
        files=model.paths,
        subject={"model": model.name, "task": subject["task"]},
        sources=code_of(fill_steering),
    )


def fill_steering(work: StepContext) -> dict[str, float]:
    """steering.json: for each layer and basis how often the prediction became the target, or another one."""
    import torch

    from vocabsem_core.features.encoder import Encoder
    from vocabsem_core.lens.steering import Push, steered
    from vocabsem_core.lens.trace import trace
    from workflows.steps.layers.spaces import read_model, vocabulary_of

    identity = work.identity
    sides = work.local["kept_rows"], work.inputs["verbalizer"], work.inputs["spectrum"]
    vocabulary = vocabulary_of(read_model(work.local), *sides)
    encoder, model = Encoder(vocabulary.model), vocabulary.model
    generator = torch.Generator().manual_seed(identity["seed"])
    places = [(layer, basis) for layer in identity["layers"] for basis in identity["bases"]]
    rows = {(layer, basis): vocabulary.label_rows(basis, layer, 1.0) for layer, basis in places}
    ends: list[dict[str, Any]] = []
    with measured() as took:
        prompts = list(_prompts(work))
        for done, (prompt, place) in enumerate(prompts, start=1):
            states = trace(model, prompt)
            own = int(vocabulary.logits(states["head"][place].unsqueeze(0)).argmax())
            others = [number for number in range(len(identity["labels"])) if number != own]
            target = others[int(torch.randint(len(others), (1,), generator=generator))]
            pushes = []
            for layer, basis in places:
                length = identity["length"] * states[layer][place].norm()
                pushes += _moves(rows[layer, basis][target] - rows[layer, basis][own], length, generator)
            at = [Push(layer, move) for (layer, _), move in zip((p for p in places for _ in "ab"), pushes, strict=True)]
            after = vocabulary.logits(steered(model, encoder, prompt, place, at)).argmax(dim=1).view(-1, 2).tolist()
            ends += [
                {"place": where, "target": [one == target for one in pair], "changed": [one != own for one in pair]}
                for where, pair in zip(places, after, strict=True)
            ]
            work.tell(done, len(prompts), "rows")
    work.out.write(STEERING, json_bytes([_counted(place, ends) for place in places]))
    return took


def _moves(along: Tensor, length: Tensor, generator: Any) -> list[Tensor]:
    """A move of a length along a direction, and one along a random direction."""
    from vocabsem_core.lens.steering import random_like

    move = along / along.norm() * length
    return [move, random_like(move, generator)]


def _prompts(work: StepContext) -> Iterator[tuple[Sequence[int], int]]:
    """Token ids and the position that predicts, of the first test rows."""
    from pathlib import Path

    from orchestration.store.arrow import read_table
    from workflows.inputs.models import checked_tokenizer
    from workflows.inputs.tables import field_columns
    from workflows.steps.model import prompts_of

    identity, rows = work.identity, []
    for path in work.inputs["test_rows"].shards():
        rows += field_columns(read_table(path)).to_pylist()
    tokenizer = checked_tokenizer(Path(work.local["folder"]), identity["tokenizer"])
    for prompt in prompts_of(tokenizer, identity, rows[: identity["rows"]]):
        yield prompt.ids, 0 if identity["position"] == "decoder first" else prompt.position


def _counted(place: tuple[str, str], ends: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of rows: the basis direction's stand first, then the random one's."""
    mine = [one for one in ends if one["place"] == place]
    counts = {what: [sum(one[what][which] for one in mine) for which in (0, 1)] for what in ("target", "changed")}
    return {
        "layer": place[0],
        "basis": place[1],
        "rows": len(mine),
        "to_target": counts["target"][0],
        "to_target_random": counts["target"][1],
        "changed": counts["changed"][0],
        "changed_random": counts["changed"][1],
    }
