"""A method on a task under a model, and the steps that it needs there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from orchestration.graph import Step
from workflows.config.compare import CompareConfig
from workflows.extractors.base import FeatureExtractor, Materials
from workflows.inputs.catalog import Task
from workflows.methods.resolved import ResolvedMethod
from workflows.steps.fit import Conditions
from workflows.steps.method_steps import fit_step, search_step

_SEARCH_SEED = 0  # whatever seeds are fitted: another seed in the list must not change the settings of the others


@dataclass(frozen=True)
class Entry:
    """A method that competes on a task under a model, at a training size.

    Attributes:
        size: rows per class, or "full".
        materials: what its model gives of the task: see `FeatureExtractor.materials`.
    """

    config: CompareConfig
    method: ResolvedMethod
    size: int | str
    model: FeatureExtractor
    task: Task
    materials: Materials

    @property
    def where(self) -> str:
        """In the labels of its steps."""
        named = f" {_told(self.size)}" if len(self.config.train_sizes) > 1 else ""
        return f"{self.model.name} {self.task.config.name} {self.method.label}{named}"

    @cached_property
    def conditions(self) -> Conditions:
        execution, task = self.config.execution, self.task
        prompting = self.model.prompting(task, self.config.encoding, execution)
        labels, metric = tuple(task.config.words), task.config.metric
        return Conditions(labels, metric, self.size, gpus=execution.gpus_per_fit, **prompting)

    @property
    def is_seeded(self) -> bool:
        """Whether fits with different seeds can differ."""
        return self.method.depends_on_seed(self.size)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that its score holds for."""
        return self.method.config.seeds or self.config.seeds

    @property
    def trials(self) -> int:
        """The budget of its search."""
        own = self.method.config.trials
        return self.config.search.trials if own is None else own

    def inputs(self, seed: int) -> Materials:
        """What it reads with a seed."""
        drawn = seed if self.is_seeded else 0
        return self.model.inputs(self.config, self.method, self.size, self.task, self.materials, drawn)

    @cached_property
    def search(self) -> Step | None:
        """The search for its settings, one for all seeds."""
        read = self.inputs(_SEARCH_SEED)
        return search_step(self.method, self.where, read, self.conditions, self.trials, _SEARCH_SEED)

    def fit(self, seed: int) -> Step:
        """The fit of a seed, and its predictions on the test rows."""
        return fit_step(self.method, self.where, self.inputs(seed), self.conditions, seed, self.search)


def _told(size: int | str) -> str:
    return "all rows" if size == "full" else f"{size} rows per class"
