"""The graph of a layer study: a model's stored states of a task, what is read of every layer, its scores, steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestration.graph import Step
from orchestration.store.fingerprint_cache import FingerprintCache
from vocabsem_core.names import MEAN
from workflows.compare.graph import check_distinct, shown_rows
from workflows.config.layer_study import LayersConfig
from workflows.config.layers import stored_layers
from workflows.errors import ConfigError, in_field
from workflows.extractors.language_model import LanguageModel
from workflows.extractors.registry import extractor_kind
from workflows.inputs.catalog import find_task
from workflows.steps.layers.readings import readings_step
from workflows.steps.layers.scores import scores_step
from workflows.steps.layers.steer import steering_step

_QUARTERS = 4  # of the way, at which states are moved where the file does not say


@dataclass(frozen=True)
class Study:
    """A task under a model.

    Attributes:
        rows: by split, the step that stores what a person sees of the rows.
        steering: None where no row is steered.
    """

    model: str
    task: str
    labels: tuple[str, ...]
    rows: Mapping[str, Step]
    readings: Step
    scores: Step
    steering: Step | None


def studies(config: LayersConfig, base: Path, data_dir: Path | None, facts: FingerprintCache) -> list[Study]:
    """The graph of a workflow file. Raises ConfigError for what cannot be found, or has no layers."""
    models = []
    for index, reference in enumerate(config.models):
        with in_field("models", index):
            model = extractor_kind(reference, base).open(reference, base, facts)
            if not isinstance(model, LanguageModel):
                raise ConfigError(f"{model.name} is no language model: it has no layers that lead to a vocabulary")
            check_layers(model.name, model.layers)
            model.check_encoding(config.encoding)
            models.append(model)
    tasks = []
    for index, reference in enumerate(config.tasks):
        with in_field("tasks", index):
            tasks.append(find_task(reference, base, data_dir))
    check_distinct("model", [model.name for model in models])
    check_distinct("task", [task.config.name for task in tasks])
    found = []
    for model in models:
        read, moved = read_layers(config, model.layers), steered_layers(config, model.name, model.layers)
        for index, task in enumerate(tasks):
            labels = tuple(task.config.words)
            with in_field("tasks", index):
                materials = model.materials(task, config.limit, config.encoding, config.execution, facts)
            readings = readings_step(config, model.about, read, labels, materials)
            scores = scores_step(readings, materials["test"], materials["test_labels"], labels, task.config.metric)
            steering = steering_step(config, model.about, moved, labels, materials) if config.steering.rows else None
            names = (model.name, task.config.name)
            found.append(Study(*names, labels, shown_rows(materials), readings, scores, steering))
    return found


def check_layers(name: str, layers: Sequence[str]) -> None:
    """Raises ConfigError for a model whose blocks are not listed, so that it has no layer but the head's input."""
    if len(layers) == 1:
        raise ConfigError(
            f"{name}: its blocks cannot be told apart (all layers share one module, as in ALBERT), so only `head` can "
            "be read; compare methods on it: `workflow: compare`"
        )


def read_layers(config: LayersConfig, known: Sequence[str]) -> list[str]:
    """The layers that are studied, first to last; `head` always. Raises ConfigError where a basis needs another."""
    stored, asked = (stored_layers(names, known) for names in (config.encoding.layers, config.layers))
    found = sorted(name for name in {*asked, "head"} if not name.endswith(MEAN))
    found = [*(name for name in found if name != "head"), "head"]
    last = known[-2]
    if "affine" in config.bases and last not in stored:
        raise ConfigError(
            f"basis `affine` is learned from the last block's output, {last}, which is not stored; add {last} to "
            "encoding.layers, or take `affine` out of `bases`",
            ("bases",),
        )
    return found


def steered_layers(config: LayersConfig, name: str, known: Sequence[str]) -> list[str]:
    """The blocks' outputs that are moved. Raises ConfigError for another layer."""
    blocks = list(known[1:-1])
    if config.steering.layers is None:
        depth = len(blocks)
        return sorted({blocks[max(1, round(depth * part / _QUARTERS)) - 1] for part in range(1, _QUARTERS + 1)})
    for layer in config.steering.layers:
        if layer not in blocks:
            raise ConfigError(
                f"{name} has no block's output {layer!r}; it has {blocks[0]} to {blocks[-1]}", ("steering", "layers")
            )
    return list(config.steering.layers)
