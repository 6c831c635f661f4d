"""What a feature extractor is: what makes the steps that store features of rows. All later steps see these alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestration.graph import Step
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import TrackedModel
from vocabsem_core.names import LabelTokens
from workflows.config.compare import CompareConfig, CompareExecution, Encoding, Execution, Limit
from workflows.config.layers import layer_problems
from workflows.config.task import TaskConfig
from workflows.errors import ConfigError
from workflows.findings import Words
from workflows.inputs.catalog import Task
from workflows.inputs.row_files import Value
from workflows.inputs.tables import SplitFile
from workflows.methods.base import Need
from workflows.methods.resolved import ResolvedMethod

Materials = Mapping[str, Step]  # role -> step
Reader = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]  # rows -> the columns that a shard of them has


class Described(ABC):
    """What is known of a feature extractor whether or not its weights are there.

    Attributes:
        gives: what of its `materials` methods may need. Without a linear head it is {"train", "unlabelled"}.
    """

    gives: ClassVar[frozenset[Need]] = frozenset({"train", "unlabelled", "head", "basis", "spectrum"})

    @property
    @abstractmethod
    def name(self) -> str:
        """In results, where it is called a model."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[str]:
        """The layers that can be stored. The one before the linear head is `head`."""

    def check_encoding(self, encoding: Encoding) -> None:
        """Raises ConfigError for what of `encoding` it cannot do."""
        problems = layer_problems(self.name, encoding.layers, self.layers)
        if encoding.max_tokens is not None:
            problems.append(f"encoding.max_tokens: {self.name} reads no tokens; leave it out")
        if problems:
            raise ConfigError("\n".join(problems), ("encoding",))

    def check_method(self, method: ResolvedMethod) -> None:
        """Raises ConfigError for a method that cannot run on its features."""
        instead = "Name the models it runs under in its `models`, or compare this model in a file without it."
        if method.method.input_kind == "prompts" or method.demonstrations != "none":
            told = f"needs a language model that reads prompts, and {self.name} is none"
            raise ConfigError(f"method {method.label!r} {told}. {instead}")
        if lacking := sorted(method.needs(searched=True) - self.gives):
            told = f"needs {', '.join(lacking)}, which {self.name} does not have"
            raise ConfigError(f"method {method.label!r} {told}. {instead}")

    def check_task(self, method: ResolvedMethod, task: TaskConfig) -> None:  # noqa: B027 - a hook, as in Method
        """Raises ConfigError for a task that the method cannot be used on with its features. The default: nothing."""


class FeatureExtractor(Described):
    """Makes the steps that store a task's features: a model and the way it reads rows."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many weights it has."""

    @abstractmethod
    def materials(
        self, task: Task, limits: Limit, encoding: Encoding, execution: Execution, facts: FingerprintCache
    ) -> dict[str, Step]:
        """Every step that a method may read, by role. A method takes what it needs; the rest is never run.

        train_rows, test_rows: what a person sees of each row, in shards of row_id (its place in the file), row_hash and
            the columns that are shown; `local["path"]` is where the rows lie.
        train_labels, test_labels: row_id and label (the class number), as `steps.data.labels_step` stores them.
        train, test: a step `encode` about model, task and split, with the names of the stored `layers` in its identity;
            shards of row_id, row_hash and a column a layer, [rows, d].
        verbalizer, head, basis, spectrum: where it `gives` head, basis and spectrum. verbalizer.json has in `tokens`
            the head's rows that stand for each class; the head is shards of row_id and weight [d], with bias where
            there is one, and head.json (scale, softcap, bias); `steps.basis.basis_steps` makes the other two of it.
        """

    def inputs(
        self,
        config: CompareConfig,
        method: ResolvedMethod,
        size: int | str,
        task: Task,
        materials: Materials,
        seed: int,
    ) -> Materials:
        """What a method reads of the materials at a training size and seed. The default: what all others do."""
        return materials

    def prompting(self, task: Task, encoding: Encoding, execution: CompareExecution) -> dict[str, Mapping[str, Any]]:
        """`reading` and `place` of the conditions of methods that are given prompts. The default: there are none."""
        return {}

    def reader(self, encode: Step, store: Store) -> Reader:
        """What reads rows in this process as the step `encode` that is given stores them.

        The default: not known, a ConfigError.
        """
        raise ConfigError(f"{self.name} cannot be served: its extractor has no reader")

    def served(self, fit: Step, store: Store) -> TrackedModel | None:
        """A fit as a model that a tracker can serve. The default: none."""
        return None


class Outline(Described):
    """What `validate` can know of a feature extractor without its weights."""

    def row_problems(
        self, task: TaskConfig, rows: Sequence[tuple[int, Mapping[str, Any]]], file: Path, encoding: Encoding
    ) -> list[str]:
        """What is wrong with rows of a file, given with their numbers from 0. The default: nothing."""
        return []

    @abstractmethod
    def words(self, task: TaskConfig, rule: LabelTokens) -> Words:
        """What stands for each label by a rule of methods. Raises ConfigError where it is the same for two labels."""


@dataclass(frozen=True)
class ExtractorKind:
    """A kind of feature extractor. Each function has what a workflow file names, and the folder that it is relative to.

    Attributes:
        knows: whether it is of this kind.
        open: finds it, with what keys are made from. Raises ConfigError where it is not there.
        outline: finds it without its weights. The list takes problems of its YAML file, as in `read_yaml`.
        field_problems: what of a file's fields no extractor of the kind could read, from its columns.
        files: its local files, which a job for a cluster takes along.
    """

    knows: Callable[[str, Path], bool]
    open: Callable[[str, Path, FingerprintCache], FeatureExtractor]
    outline: Callable[[str, Path, list[str]], Outline]
    field_problems: Callable[[SplitFile, Mapping[str, Sequence[Value]]], list[str]]
    files: Callable[[str, Path], list[Path]]
