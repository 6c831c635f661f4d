"""The step that reads every layer: fits and predictions by each basis, and what needs no test labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import StepContext
from orchestration.graph import Step, called
from orchestration.store.files import json_bytes
from vocabsem_core.errors import InputError
from workflows.config.layer_study import LayersConfig
from workflows.inputs.models import Model
from workflows.methods.registry import METHODS
from workflows.steps.code import code_of, method_code
from workflows.steps.fit import import_sources
from workflows.steps.measures import measured

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.layer_states import LayerFeatures
    from workflows.steps.layers.spaces import Space, Vocabulary

READINGS, PREDICTIONS, CALIBRATORS, PLANE = (
    "readings.json",
    "predictions.safetensors",
    "calibrators.safetensors",
    "plane.json",
)
BY_ROWS = ("affinity", "affinity-centred", "semantic-prior")  # of each basis
BY_STATES = ("linear-probe", "knn")  # the same for all bases of a space
CALIBRATED = "calibration"
CLUSTERS = ("clusters", "clusters-calibrated")


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
        version=1,
        run="workflows.steps.layers.readings:fill_readings",
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
            "methods": {method.name: method.version for method in methods},
        },
        inputs={role: materials[role] for role in roles},
        local={**model.files, "kept_rows": model.kept_rows},
        cost="fit",
        files=model.paths,
        subject=subject,
        sources=code_of(fill_readings, *(module for method in methods for module in method_code(method))),
    )


def fill_readings(work: StepContext) -> dict[str, float]:
    """readings.json: a record for each layer and basis; predictions and calibrators; plane.json: the classes' ways."""
    from safetensors.torch import save

    from workflows.steps.layers.plane import Plane
    from workflows.steps.layers.spaces import read_vocabulary, spaces

    identity = work.identity
    vocabulary = read_vocabulary(work.local, work.inputs["verbalizer"], work.inputs["spectrum"])
    for name in (*BY_ROWS, *BY_STATES, CALIBRATED):
        import_sources(METHODS[name])
    records: list[dict[str, Any]] = []
    predictions: dict[str, Tensor] = {}
    calibrators: dict[str, Tensor] = {}
    plane = Plane(vocabulary.label_rows("head", "head", 1.0))
    with measured() as took:
        for number, layer in enumerate(identity["layers"]):
            for space in spaces(layer, identity["bases"], work.inputs, vocabulary):
                by_states: dict[str, Any] = {}
                for basis in space.bases:
                    reader = _Reader(work, vocabulary, space, layer, basis)
                    by_states = by_states or reader.by_states()
                    record, found, fitted = reader.record(by_states)
                    records.append(record)
                    predictions |= {f"{layer}/{basis}/{name}": value for name, value in found.items()}
                    calibrators |= {f"{layer}/{basis}/{name}": value for name, value in fitted.items()}
                    if basis == "head":
                        plane.add(layer, reader.features, fitted)
            work.tell(number + 1, len(identity["layers"]), "layers")
    work.out.write(PREDICTIONS, save({name: value.clone() for name, value in predictions.items()}))
    work.out.write(CALIBRATORS, save({name: value.contiguous() for name, value in calibrators.items()}))
    work.out.write(READINGS, json_bytes(records))
    work.out.write(PLANE, json_bytes(plane.document()))
    return took


class _Reader:
    """Reads one layer by one basis."""

    def __init__(self, work: StepContext, vocabulary: Vocabulary, space: Space, layer: str, basis: Any) -> None:
        from workflows.methods.inputs.layer_states import LayerFeatures

        self._work, self._vocabulary, self._space = work, vocabulary, space
        self._layer, self._basis, self._identity = layer, basis, work.identity
        self.features = LayerFeatures(
            work.inputs,
            layer,
            list(work.identity["labels"]),
            "full",
            work.identity["seed"],
            seen_train=space.train,
            seen_test=space.test,
            rows=lambda shrinkage: vocabulary.label_rows(basis, layer, shrinkage),
        )

    def by_states(self) -> dict[str, Any]:
        """What does not depend on rows: predictions of probe and neighbours, clusters, cosines."""
        from vocabsem_core.lens.readings import class_cosines, clusters

        knn, states = METHODS["knn"], self._space.test
        rows = self._given("knn")
        most = len(rows.train.labels)
        jobs: list[tuple[Any, dict[str, Tensor]]] = [
            (knn.Settings.model_validate({"k": min(k, most)}), {}) for k in self._neighbours()
        ]
        votes = []
        for scores in knn.predict_many(jobs, states, rows):
            assert not isinstance(scores, InputError), "neighbours refuse nothing"
            votes.append(scores.argmax(dim=1))
        names = [f"knn-{k}" for k in self._neighbours()]
        probe, weights = self._predicted("linear-probe")
        inside, between = class_cosines(self._space.train, self._labels())
        found = clusters(states, len(self.features.labels), self._identity["seed"])
        return {
            "predictions": {"linear-probe": probe, **dict(zip(names, votes, strict=True)), "clusters": found},
            "weights": {"linear-probe": weights},
            "numbers": {"cosine_within": inside, "cosine_between": between},
        }

    def record(self, by_states: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        """Numbers of the layer, predictions by reading, and what calibration learned."""
        from vocabsem_core.lens.readings import clusters, recomposed

        predictions, weights = dict(by_states["predictions"]), dict(by_states["weights"])
        refused: dict[str, str] = {}
        for name in BY_ROWS:
            try:
                predictions[name], weights[name] = self._predicted(name)
            except InputError as error:  # at the first layer all prompts may end in one and the same state
                refused[name] = str(error)
        fitted: dict[str, Tensor] = {}
        if self._basis in self._identity["calibrated"]:
            fitted = self._fitted(CALIBRATED)
            predictions[CALIBRATED], weights[CALIBRATED] = self._predicted(CALIBRATED, fitted)
            moved = self._moved(fitted)
            predictions[CLUSTERS[1]] = clusters(moved, len(self.features.labels), self._identity["seed"])
        matrix = self._vocabulary.recomposition(self._basis, self._layer)
        record = {
            "layer": self._layer,
            "basis": self._basis,
            "weights": weights,
            "refused": refused,
            **by_states["numbers"],
            "recomposed": float(recomposed(self._space.test, matrix).mean()),
            **self._over_the_vocabulary(),
        }
        return record, predictions, fitted

    def _moved(self, fitted: Mapping[str, Tensor]) -> Tensor:
        from vocabsem_core.calibration.modules import residual

        return residual(self._space.test - fitted["centre"], fitted)

    def _over_the_vocabulary(self) -> dict[str, Any]:
        """Where the model's head applies: the rank of the best label word, and the entropy."""
        from vocabsem_core.lens.readings import entropies, label_ranks

        if not self._space.through_head:
            return {"label_rank": None, "entropy": None}
        logits = self._vocabulary.head.logits(self._space.test[: self._identity["vocabulary_rows"]])
        tokens = [token for of_label in self._vocabulary.tokens for token in of_label]
        ranks = label_ranks(logits, tokens).double()
        return {"label_rank": float(ranks.quantile(0.5)), "entropy": float(entropies(logits).mean())}

    def _predicted(self, name: str, fitted: dict[str, Tensor] | None = None) -> tuple[Tensor, int]:
        """Class numbers of the test rows, and how many weights were trained."""
        method, features = METHODS[name], self._given(name)
        fitted = self._fitted(name) if fitted is None else fitted
        scores = method.predict(method.Settings(), fitted, self._space.test, features)
        return scores.argmax(dim=1), method.trained_weights(fitted)

    def _fitted(self, name: str) -> dict[str, Tensor]:
        return METHODS[name].fit(METHODS[name].Settings(), self._given(name), self._identity["seed"])

    def _given(self, name: str) -> LayerFeatures:
        from dataclasses import replace

        return replace(self.features, hold_out=METHODS[name].holds_out)

    def _labels(self) -> Tensor:
        from dataclasses import replace

        return replace(self.features, hold_out=False).stored_train.labels

    def _neighbours(self) -> Sequence[int]:
        return self._identity["neighbours"]
