"""A classifier that stays in this process: rows in, class scores out, the same as the step `predict` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.store.artifacts import Artifact, Store
from vocabsem_core.statistics.temperature import probabilities
from workflows.methods.ensembles import predict_folds
from workflows.methods.inputs.prompts import Texts, read_prompts
from workflows.methods.inputs.states import TaskFeatures
from workflows.methods.registry import method_named
from workflows.prediction.choice import Classifier
from workflows.prediction.predict import Predictions

if TYPE_CHECKING:
    from torch import Tensor

Rows = Sequence[Mapping[str, Any]]


class Service:
    """Holds the model and what was fitted. One call at a time.

    Raises ConfigError where something that it reads is gone.
    """

    def __init__(self, classifier: Classifier, store: Store) -> None:
        self.labels = list(classifier.candidate.labels)
        self.temperature = classifier.validation.get("temperature", 1.0)
        self._fit = classifier.candidate.fit
        self._method = method_named(self._fit.local.get("method_file", self._fit.identity["method"]))
        self._settings = self._method.Settings.model_validate(classifier.fit.json("fit.json")["settings"])
        self._fitted = _tensors(classifier.fit)
        self._held = ExitStack()
        tuned = self._method.input_kind == "prompts"
        self._scores = self._by_prompts(store) if tuned else self._by_states(classifier, store)

    def predict(self, rows: Rows) -> Predictions:
        """The labels of some rows."""
        scores, cut = self._scores(rows)
        chances = probabilities(scores.float().numpy(), self.temperature)
        return Predictions(self.labels, scores.argmax(dim=1).numpy(), chances, int((cut > 0).sum()), None)

    def documents(self, rows: Rows) -> list[dict[str, Any]]:
        """The label of each row with its probability, and those of all classes."""
        found = self.predict(rows)
        return [
            {
                "label": self.labels[number],
                "probability": round(float(chances[number]), 4),
                "probabilities": {name: round(float(one), 4) for name, one in zip(self.labels, chances, strict=True)},
            }
            for number, chances in zip(found.numbers, found.probabilities, strict=True)
        ]

    def close(self) -> None:
        """The model is as it was before."""
        self._held.close()

    def _by_states(self, classifier: Classifier, store: Store) -> Any:
        import numpy as np

        fit, identity = self._fit, self._fit.identity
        read, folds = classifier.candidate.reader(store), identity.get("folds", 1)
        inputs = {role: store.need(step) for role, step in fit.inputs.items() if role not in ("test", "search")}
        materials = TaskFeatures(
            inputs,
            identity["layer"],
            self.labels,
            identity.get("train_size", "full"),
            identity["seed"],
            hold_out=self._method.holds_out,
        )

        def scores(rows: Rows) -> tuple[Tensor, Any]:
            columns = read(rows)
            states = materials.states_of(lambda name: columns[name])
            found = predict_folds(self._method, self._settings, self._fitted, states, materials, folds)
            return found, columns.get("cut", np.zeros(len(states)))  # of texts alone

        return scores

    def _by_prompts(self, store: Store) -> Any:
        import numpy as np

        from vocabsem_core.finetuning.adapters import adapted, use

        identity, local = self._fit.identity, self._fit.local
        method: Any = self._method
        inputs = {"verbalizer": store.need(self._fit.inputs["verbalizer"])}
        inputs["test_texts"] = store.need(self._fit.inputs["test_texts"])  # to try the model out on
        texts = Texts(
            inputs,
            identity["reading"],
            Path(local["folder"]),
            local["stamp"],
            self.labels,
            identity["train_size"],
            identity["seed"],
            vocabulary=local["vocabulary"],
        )
        use(self._held.enter_context(adapted(texts.model, method.adaptation(self._settings), 0)), self._fitted)
        classifier = texts.classifier

        def scores(rows: Rows) -> tuple[Tensor, Any]:
            prompts = texts.prompts_of(rows)
            return classifier.scores(read_prompts(prompts)), np.array([prompt.cut for prompt in prompts])

        return scores


def _tensors(fit: Artifact) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(fit.path("fitted.safetensors").read_bytes())
