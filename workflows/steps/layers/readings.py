"""The step that reads every layer, a shard each: fits and predictions by each basis, and what needs no test labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.execution.work import StepContext
from orchestration.graph import Resources, Step, called
from orchestration.store.artifacts import Artifact
from workflows.config.layer_study import LayersConfig
from workflows.inputs.models import Model
from workflows.methods.registry import METHODS
from workflows.steps.code import code_of, method_code
from workflows.steps.fit import import_sources
from workflows.steps.layers.stored import BY_ROWS, BY_STATES, CALIBRATED
from workflows.steps.measures import measured, numerics

_MOST_WORKERS = 8  # each holds the model


def readings_step(
    config: LayersConfig, model: Model, layers: Sequence[str], labels: Sequence[str], materials: Mapping[str, Step]
) -> Step:
    """What is read of every layer of a task's stored states."""
    methods = [METHODS[name] for name in (*BY_ROWS, *BY_STATES, CALIBRATED)]
    roles = ("train", "train_labels", "test", "verbalizer", "spectrum")
    subject = {"model": model.name, "task": materials["test"].subject["task"]}
    return Step(
        name="layers",
        label=f"layers {called(subject)}",
        version=3,  # 3: the methods' settings are written out
        run="workflows.steps.layers.readings:LayerWorker",
        identity={
            "model": model.weights,
            "kept_rows": model.kept_rows,
            "labels": list(labels),
            "layers": list(layers),
            "bases": list(config.bases),
            "calibrated": list(config.calibrated),
            "neighbours": list(config.neighbours),
            "vocabulary_rows": config.vocabulary_rows,
            "seed": config.seed,
            "methods": {
                method.name: {"version": method.version, "settings": method.Settings().model_dump(mode="json")}
                for method in methods
            },
        },
        inputs={role: materials[role] for role in roles},
        setup={**model.files, "kept_rows": model.kept_rows},
        resources=Resources(cpus=1, workers=min(len(layers), _MOST_WORKERS)),
        cost="fit",
        files=model.paths,
        subject=subject,
        sources=code_of(LayerWorker, *(module for method in methods for module in method_code(method))),
    )


class LayerWorker:
    """Holds the model; fills a shard for each layer."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        from vocabsem_core.numerics.memory import keep_freed_memory
        from workflows.steps.layers.spaces import read_model

        keep_freed_memory()
        for name in (*BY_ROWS, *BY_STATES, CALIBRATED):
            import_sources(METHODS[name])
        self._model, self._kept = read_model(setup), setup["kept_rows"]
        self._vocabularies: dict[str, Any] = {}

    @staticmethod
    def shard_count(work: StepContext) -> int:
        return len(work.identity["layers"])

    def fill(self, work: StepContext, shard: int) -> None:
        """A row a basis: what `stored.Reading` says."""
        from workflows.steps.layers.reader import Reader
        from workflows.steps.layers.spaces import spaces
        from workflows.steps.layers.stored import table_of

        layers = work.identity["layers"]
        layer, found = layers[shard], []
        vocabulary = self._vocabulary(work.inputs["verbalizer"], work.inputs["spectrum"])
        with measured() as took:
            for space in spaces(layer, work.identity["bases"], work.inputs, vocabulary):
                by_states: dict[str, Any] = {}
                for basis in space.bases:
                    reader = Reader(work, vocabulary, space, layer, basis)
                    by_states = by_states or reader.by_states()
                    found.append(reader.read(by_states))
                    work.report_alive(shard)
        work.out.write_shard(shard, table_of(found), numerics("cpu"), took)
        work.tell(1, len(layers), "layers", part=str(shard), at_once=True)

    def _vocabulary(self, verbalizer: Artifact, spectrum: Artifact) -> Any:
        """The model's two sides with a task's label words; what was computed of them serves its other layers."""
        from workflows.steps.layers.spaces import vocabulary_of

        place = str(verbalizer)
        if place not in self._vocabularies:
            self._vocabularies = {place: vocabulary_of(self._model, self._kept, verbalizer, spectrum)}
        return self._vocabularies[place]
