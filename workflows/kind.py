"""A kind of workflow: all that the rest of the program asks of it. A kind's folder makes one; `registry` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from orchestration.graph import Step
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import Store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.tracking.tracker import Status, TrackedRun
from workflows.config.compare import AnyExecution
from workflows.errors import Place
from workflows.findings import Checking
from workflows.results.model import Found
from workflows.runtime.progress import Say

Results = Sequence[Found]
Config = TypeVar("Config", bound=BaseModel)


class WorkflowConfig(Protocol):
    """The fields that a workflow file of any kind has."""

    @property
    def workflow(self) -> str: ...
    @property
    def execution(self) -> AnyExecution: ...
    @property
    def experiment(self) -> str: ...


class Job(Protocol):
    """A workflow file made into a graph."""

    @property
    def targets(self) -> list[Step]:
        """The final steps."""
        ...

    def results(self, store: Store, say: Say) -> Results:
        """What is there of the results; says what is damaged and leaves it out."""
        ...

    def with_earlier(self, results: Results, earlier: Results) -> Results:
        """Results, and those of an earlier time of the same run that are not there now."""
        ...

    def add_to_record(self, record: RunRecord, store: Store, results: Results, say: Say) -> None:
        """Write what the record of a run holds beside its results, before it is tracked; says what is damaged.

        `results`: as `with_earlier` gives them.
        """
        ...

    def tracked(
        self, record: RunRecord, store: Store, results: Results, status: Status, say: Say
    ) -> tuple[TrackedRun, tuple[TrackedRun, ...]]:
        """What a tracker shall hold of the run, and of its children; says what is damaged and leaves it out."""
        ...

    def notes(self, store: Store, ran: bool) -> list[str]:
        """What a reader of the results should know; `ran`: whether anything was computed just now."""
        ...

    def document(self, store: Store) -> dict[str, Any]:
        """What `run --json` shows beside the results."""
        ...

    def deliver(self, store: Store, results: Results) -> list[str]:
        """Leave what the user asked for outside the store, once everything is done; says what."""
        ...


@dataclass(frozen=True)
class Asked:
    """Which fit of a run is meant, by names in its results; None: any.

    Attributes:
        seed: None: the first.
        train_size: rows per class, or "full"; None: the largest.
    """

    model: str | None = None
    task: str | None = None
    method: str | None = None
    seed: int | None = None
    train_size: int | str | None = None


class Candidate(Protocol):
    """A fit of a run that can predict rows without labels."""

    @property
    def model(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def train_size(self) -> int | str:
        """Training rows per class, or "full"."""
        ...

    @property
    def seed(self) -> int: ...
    @property
    def labels(self) -> Sequence[str]:
        """The classes, in the order of scores."""
        ...

    @property
    def fields(self) -> Sequence[str]:
        """What a row has to have."""
        ...

    @property
    def fit(self) -> Step: ...
    @property
    def validation(self) -> Step:
        """What it comes to on the validation rows: see `steps.prediction`."""
        ...

    @property
    def certainty(self) -> Step:
        """How far its probabilities are from its hits on the run's test rows."""
        ...

    def has_tracked_model(self, store: Store) -> bool:
        """Whether the tracker has it as a model."""
        ...

    def reader(self, store: Store) -> Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]:
        """What reads rows in this process, for a method that reads features: columns by name."""
        ...

    def predict(self, rows: Path, facts: FingerprintCache) -> Step:
        """Its labels of the rows of a file. Raises ConfigError for a file that it cannot read."""
        ...


Named = tuple[tuple[Place, str], ...]


@dataclass(frozen=True)
class Names:
    """What a workflow file names, each name with its field.

    Attributes:
        models, tasks, methods: by catalog name, path or id, as the file has them.
    """

    models: Named = ()
    tasks: Named = ()
    methods: Named = ()


def _nothing(config: Any) -> None:
    """Any file of the kind suits."""


def _no_files(config: Any, base: Path) -> list[Path]:
    return []


@dataclass(frozen=True)
class WorkflowKind(Generic[Config]):
    """A kind of workflow.

    Attributes:
        name: what the field `workflow` says.
        config: the schema of the file.
        job: makes the graph, from the file's content, the folder its relative paths start from, the folder of
            `--data-dir`, remembered fingerprints, and the store. Raises ConfigError for what cannot be found.
        names: what the file names.
        check: tells what of the file and all it names would not run.
        files: the local files it names beside models, tasks and methods, which a job for a cluster takes along; from
            the content and the folder.
        check_submission: raises ConfigError for what a job on a cluster cannot do.
        report: writes one form of a run's report, from record, store, form and path; None: it has no report.
        candidates: the fits of a run that can predict new rows, from the content of its file, the folder, that of
            `--data-dir`, fingerprints, and what is asked for; None: it makes no classifier.
    """

    name: str
    config: type[Config]
    job: Callable[[Config, Path, Path | None, FingerprintCache, Store], Job]
    names: Callable[[Config], Names]
    check: Callable[[Config, Checking], None]
    files: Callable[[Config, Path], Sequence[Path]] = _no_files
    check_submission: Callable[[Config], None] = _nothing
    report: Callable[[RunRecord, Store, str, Path], None] | None = None
    candidates: Callable[[Config, Path, Path | None, FingerprintCache, Asked], Sequence[Candidate]] | None = None
