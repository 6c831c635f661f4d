"""The fits of a comparison that can predict new rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from orchestration.graph import Step
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.compare.entry import Entry
from workflows.compare.graph import open_model, open_task
from workflows.config.compare import CompareConfig
from workflows.errors import ConfigError, nearest
from workflows.extractors.base import Reader
from workflows.kind import Asked
from workflows.methods.resolved import resolve
from workflows.steps.prediction import certainty_step, predict_step, validation_step


@dataclass(frozen=True)
class Competitor:
    """A method's fit of one seed."""

    entry: Entry
    seed: int

    @property
    def model(self) -> str:
        return self.entry.model.name

    @property
    def task(self) -> str:
        return self.entry.task.config.name

    @property
    def method(self) -> str:
        return self.entry.method.label

    @property
    def metric(self) -> str:
        return self.entry.task.config.metric

    @property
    def train_size(self) -> int | str:
        return self.entry.size

    @property
    def labels(self) -> Sequence[str]:
        return tuple(self.entry.task.config.words)

    @property
    def fields(self) -> Sequence[str]:
        return sorted(self.entry.task.config.source.columns)

    @cached_property
    def fit(self) -> Step:
        return self.entry.fit(self._drawn)

    @cached_property
    def validation(self) -> Step:
        read = self.entry.inputs(self._drawn)
        return validation_step(self.fit, self.entry.method.method, read, self.metric, self.entry.size)

    @cached_property
    def certainty(self) -> Step:
        return certainty_step(self.fit, self.validation, self.entry.materials["test_labels"])

    def has_tracked_model(self, store: Store) -> bool:
        return self.entry.model.served(self.fit, store) is not None

    def reader(self, store: Store) -> Reader:
        return self.entry.model.reader(self.fit.inputs["test"], store)

    def predict(self, rows: Path, facts: FingerprintCache) -> Step:
        """The same entry, with the new rows in the place of the task's test rows."""
        entry, task = self.entry, replace(self.entry.task, new_rows=rows)
        config, all_rows = entry.config, entry.config.limit.model_copy(update={"test": None})
        materials = entry.model.materials(task, all_rows, config.encoding, config.execution, facts)
        new = replace(entry, task=task, materials=materials).fit(self._drawn)
        return predict_step(self.fit, entry.method.method, self.validation, new)

    @property
    def _drawn(self) -> int:
        return self.seed if self.entry.is_seeded else 0


def candidates(
    config: CompareConfig, base: Path, data_dir: Path | None, facts: FingerprintCache, asked: Asked
) -> list[Competitor]:
    """Every method of one model and task, at the largest training size, or the one that is asked for.

    Raises ConfigError for a name that is not there, and where several models or tasks are and none is named.
    """
    models = {reference: open_model(index, config, base, facts) for index, reference in enumerate(config.models)}
    tasks = {
        task.config.name: task for task in (open_task(i, config, base, data_dir) for i in range(len(config.tasks)))
    }
    model = _one("model", asked.model, [model.name for model in models.values()])
    reference, extractor = next((name, found) for name, found in models.items() if found.name == model)
    task = tasks[_one("task", asked.task, list(tasks))]
    listed = [method for method in config.methods if method.runs_under(reference)]
    if asked.method is not None:
        label = _one("method", asked.method, [method.label for method in listed])
        listed = [method for method in listed if method.label == label]
    materials = extractor.materials(task, config.limit, config.encoding, config.execution, facts)
    size, found = config.train_sizes[-1] if asked.train_size is None else asked.train_size, []
    if size not in config.train_sizes:
        there = ", ".join(map(str, config.train_sizes))
        raise ConfigError(f"the run has no training size {size!r}; it has {there}")
    for method in listed:
        entry = Entry(config, resolve(method, base), size, extractor, task, materials)
        seed = entry.seeds[0] if asked.seed is None else asked.seed
        if seed not in entry.seeds:
            raise ConfigError(f"method {method.label!r} has no seed {seed}; it has {', '.join(map(str, entry.seeds))}")
        found.append(Competitor(entry, seed))
    return found


def _one(kind: str, asked: str | None, there: Sequence[str]) -> str:
    """The name that is meant."""
    if asked is None and len(there) == 1:
        return there[0]
    if asked is None:
        raise ConfigError(f"the run has {len(there)} {kind}s: name one, --{kind} {' or '.join(there)}")
    if asked not in there:
        raise ConfigError(f"the run has no {kind} {asked!r}; {nearest(asked, list(there))}")
    return asked
