"""Labels of the rows of a file, by a fit of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.store.artifacts import Store
from workflows.inputs.row_files import column_names
from workflows.prediction.carry_out import carry_out
from workflows.prediction.choice import Classifier, facts_of, run_by
from workflows.prediction.tables import check_new
from workflows.runtime.progress import Say, Watching

if TYPE_CHECKING:
    import numpy as np

_FEW = 1024  # rows, one shard: starting a cluster takes longer than reading them


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of some rows.

    Attributes:
        labels: the classes.
        numbers: the class of each row, [n].
        probabilities: [n, classes].
        cut: how many texts lost tokens so that their prompts fit.
        far: whether a row is farther from the training rows than all but a hundredth of the validation rows, [n]; None
            where that is not known.
    """

    labels: Sequence[str]
    numbers: np.ndarray
    probabilities: np.ndarray
    cut: int
    far: np.ndarray | None

    def columns(self, abstain_below: float | None = None) -> dict[str, list[Any]]:
        """The columns that stand beside those of the rows; below a probability there is no prediction."""
        highest = self.probabilities.max(axis=1)
        sure = highest >= (abstain_below or 0.0)
        names = [self.labels[number] if known else None for number, known in zip(self.numbers, sure, strict=True)]
        shown = {f"probability_{label}": self._rounded(self.probabilities[:, i]) for i, label in enumerate(self.labels)}
        far = {"far": self.far.tolist()} if self.far is not None else {}
        return {"prediction": names, "probability": self._rounded(highest), **shown, **far}

    @staticmethod
    def _rounded(values: np.ndarray) -> list[float]:
        return [round(float(value), 4) for value in values]


def predict(
    classifier: Classifier,
    rows: Path,
    store: Store,
    executor: str | None,
    say: Say,
    watching: Watching,
) -> Predictions:
    """Predict the rows of a file; what an earlier attempt made of them is used.

    Args:
        executor: of the steps; None: as the run's workflow file has it, but in this process where that is as fast.
    """
    from workflows.methods.inputs.states import has_column, read_column

    candidate = classifier.candidate
    step = candidate.predict(rows, facts_of(store))  # which says what is wrong with the file
    check_new(rows, _names(candidate.labels), column_names(rows))
    execution = classifier.execution
    few = _count(step) <= _FEW or _has_one_reader(execution)
    carry_out([step], store, run_by(execution, executor, few), say, watching)
    made = store.need(step)
    far = read_column(made, "distance") > classifier.validation["far"] if has_column(made, "distance") else None
    cut = int((read_column(made, "cut") > 0).sum()) if has_column(made, "cut") else 0
    numbers, chances = read_column(made, "prediction"), read_column(made, "probabilities")
    return Predictions(candidate.labels, numbers, chances, cut, far)


def _has_one_reader(execution: Any) -> bool:
    """Whether Ray on this machine would have one process read the rows: then this one can, and nothing is to start."""
    import torch

    return execution.encoders in (None, 1) and not torch.cuda.is_available()


def _count(step: Any) -> int:
    """Rows that it predicts."""
    read = step.inputs.get("test_texts") or step.inputs["test"]
    if "rows" in read.local:
        return read.local["rows"]
    return next(made.local["rows"] for made in read.inputs.values() if "rows" in made.local)


def _names(labels: Sequence[str]) -> list[str]:
    return ["prediction", "probability", *(f"probability_{label}" for label in labels), "far"]


def summary(classifier: Classifier, found: Predictions, abstain_below: float | None) -> list[str]:
    """What a person should know of the predictions, as lines."""
    candidate, rows = classifier.candidate, len(found.numbers)
    named = f"{candidate.method} ({classifier.why}), {candidate.model}, task {candidate.task}"
    counts = [int((found.numbers == number).sum()) for number in range(len(found.labels))]
    told = ", ".join(f"{label} {count:,}" for label, count in zip(found.labels, counts, strict=True))
    lines = [f"{rows:,} rows by {named}", f"  {told}"]
    if abstain_below is not None:
        unsure = int((found.probabilities.max(axis=1) < abstain_below).sum())
        lines.append(f"  no prediction for {unsure:,} rows: their probability is below {abstain_below:g}")
    if found.cut:
        lines.append(f"  {found.cut:,} texts were cut to fit the model's window")
    if found.far is not None and found.far.mean() > _USUAL:
        lines.append(
            f"  {int(found.far.sum()):,} rows ({found.far.mean():.0%}) are farther from the training rows than 99 % of "
            "the validation rows are: expect more mistakes there (column far)"
        )
    lines.append(f"  {_certainty(classifier)}")
    return lines


_USUAL = 0.02  # share of far rows: twice what the validation rows have


def _certainty(classifier: Classifier) -> str:
    """How the probabilities were set, and how far they were from the hits on the run's test rows."""
    known, seen = classifier.validation, classifier.certainty
    error = f"their calibration error on the run's {seen['rows']:,} test rows is {seen['after']:.3f}"
    if not known["rows"]:
        return f"probabilities are the scores' own, no row is held out to set a temperature by; {error}"
    told = f"probabilities at temperature {known['temperature']:.3g}, set on {known['rows']:,} validation rows"
    return f"{told}; {error} ({seen['before']:.3f} without it)"
