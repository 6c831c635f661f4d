"""What is read of one layer by one basis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from orchestration.execution.work import StepContext
from vocabsem_core.calibration.modules import residual
from vocabsem_core.errors import InputError
from vocabsem_core.lens.readings import class_cosines, clusters, entropies, label_ranks, recomposed
from vocabsem_core.names import LayerBasis
from workflows.methods.inputs.layer_states import LayerFeatures
from workflows.methods.registry import METHODS
from workflows.steps.layers.plane import class_ways
from workflows.steps.layers.spaces import Space, Vocabulary
from workflows.steps.layers.stored import AFTER, BY_ROWS, CALIBRATED, CLUSTERS, NEIGHBOURS, Reading


class Reader:
    """Reads one layer by one basis."""

    def __init__(self, work: StepContext, vocabulary: Vocabulary, space: Space, layer: str, basis: LayerBasis) -> None:
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
        states = self._space.test
        probe, weights = self._predicted("linear-probe")
        inside, between = class_cosines(self._space.train, self._labels())
        found = clusters(states, len(self.features.labels), self._identity["seed"])
        return {
            "predictions": {"linear-probe": probe, **self._votes(self._given("knn"), states), "clusters": found},
            "weights": {"linear-probe": weights},
            "numbers": {"cosine_within": inside, "cosine_between": between},
        }

    def read(self, by_states: Mapping[str, Any]) -> Reading:
        """Everything; `by_states`: what the method of that name gave for a basis of the same space."""
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
            train, test = (
                residual(states - fitted["centre"], fitted) for states in (self._space.train, self._space.test)
            )
            predictions[CLUSTERS[1]] = clusters(test, len(self.features.labels), self._identity["seed"])
            votes = self._votes(replace(self._given("knn"), seen_train=train), test)
            predictions |= {f"{name}{AFTER}": found for name, found in votes.items()}
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
        ways = class_ways(self._vocabulary, self.features, fitted) if self._basis == "head" else {}
        return Reading(record, predictions, fitted, ways)

    def _votes(self, features: LayerFeatures, states: Tensor) -> dict[str, Tensor]:
        """Class numbers of states by their nearest training states, for each number of neighbours."""
        knn, whole, most = METHODS["knn"], self._settings("knn").model_dump(), len(features.train.labels)
        names = [f"{NEIGHBOURS}{k}" for k in self._identity["neighbours"]]
        jobs: list[tuple[Any, dict[str, Tensor]]] = [
            (knn.Settings.model_validate({**whole, "k": min(k, most)}), {}) for k in self._identity["neighbours"]
        ]
        votes = []
        for scores in knn.predict_many(jobs, states, features):
            assert not isinstance(scores, InputError), "neighbours refuse nothing"
            votes.append(scores.argmax(dim=1))
        return dict(zip(names, votes, strict=True))

    def _over_the_vocabulary(self) -> dict[str, Any]:
        """Where the model's head applies: the rank of the best label word, and the entropy."""
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
        scores = method.predict(self._settings(name), fitted, self._space.test, features)
        return scores.argmax(dim=1), method.trained_weights(fitted)

    def _fitted(self, name: str) -> dict[str, Tensor]:
        return METHODS[name].fit(self._settings(name), self._given(name), self._identity["seed"])

    def _settings(self, name: str) -> Any:
        """A method's, as the step's identity holds them."""
        return METHODS[name].Settings.model_validate(self._identity["methods"][name]["settings"])

    def _given(self, name: str) -> LayerFeatures:
        return replace(self.features, hold_out=METHODS[name].holds_out)

    def _labels(self) -> Tensor:
        return replace(self.features, hold_out=False).stored_train.labels
