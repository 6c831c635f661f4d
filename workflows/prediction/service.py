"""A classifier that stays in this process: rows in, class scores out, the same as the step `predict` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from orchestration.execution.work import work_of
from orchestration.store.artifacts import Store
from vocabsem_core.statistics.temperature import probabilities
from workflows.errors import ConfigError
from workflows.methods.ensembles import predict_folds
from workflows.methods.inputs.prompts import read_prompts
from workflows.prediction.choice import Classifier
from workflows.prediction.predict import Predictions
from workflows.steps.fit import method_of
from workflows.steps.prediction import fit_of, seen

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures

Rows = Sequence[Mapping[str, Any]]


class Service:
    """Holds the model and what was fitted. One call at a time.

    Raises ConfigError where something that it reads is gone.
    """

    def __init__(self, classifier: Classifier, store: Store) -> None:
        self.labels = list(classifier.candidate.labels)
        self.temperature = classifier.validation.get("temperature", 1.0)
        self._work = work_of(classifier.candidate.fit, store)
        self._method: Any = method_of(self._work)
        self._settings, self._fitted = fit_of(classifier.fit, self._method)
        self._held = ExitStack()
        self._materials: TaskFeatures | None = None
        tuned = self._method.input_kind == "prompts"
        self._scores = self._by_prompts() if tuned else self._by_states(classifier.candidate.reader(store))

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

    def scores_of(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Class scores [n, classes] of states, by layer, for a caller that has them: such as a policy, step by step.

        Raises ConfigError for a method that reads prompts, not states.
        """
        if self._materials is None:
            raise ConfigError(
                f"method {self._method.name!r} reads prompts and has no scores of states; give the rows to `predict`"
            )
        states = self._materials.states_of(lambda name: columns[name])
        folds = self._work.identity.get("folds", 1)
        return predict_folds(self._method, self._settings, self._fitted, states, self._materials, folds)

    def close(self) -> None:
        """The model is as it was before."""
        self._held.close()

    def _by_states(self, read: Any) -> Any:
        import numpy as np

        self._materials = seen(self._work, hold_out=self._method.holds_out)

        def scores(rows: Rows) -> tuple[Tensor, Any]:
            columns = read(rows)
            return self.scores_of(columns), columns.get("cut", np.zeros(len(rows)))  # of texts alone

        return scores

    def _by_prompts(self) -> Any:
        import numpy as np

        from vocabsem_core.finetuning.adapters import adapted, use

        texts = seen(self._work)
        adaptation = self._method.adaptation(self._settings)
        use(self._held.enter_context(adapted(texts.model, adaptation, 0)), self._fitted)
        classifier = texts.classifier

        def scores(rows: Rows) -> tuple[Tensor, Any]:
            prompts = texts.prompts_of(rows)
            return classifier.scores(read_prompts(prompts)), np.array([prompt.cut for prompt in prompts])

        return scores
