"""A tracker of experiments, as the rest of the program knows it: plain data of runs, and a protocol of six members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestration.errors import UserError

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]  # KILLED: interrupted
Heard = Callable[[int, int], None]  # (runs that are written, of how many)


@dataclass(frozen=True)
class TrackedModel:
    """A fitted model, as files and documents, without pickle: a module's `_load_pyfunc(folder, config)` loads it.

    Attributes:
        loader: the module.
        inputs: the columns of its table; none: it takes a list of texts.
        config: what it is told at loading unless the caller says otherwise.
        files: name in its folder -> file that is copied there.
        documents: name in its folder -> JSON that is written there.
    """

    loader: str
    inputs: tuple[str, ...]
    config: Mapping[str, Any]
    files: Mapping[str, Path]
    documents: Mapping[str, Any]


@dataclass(frozen=True)
class TrackedData:
    """A data set that a run read.

    Attributes:
        name, digest: of the data set.
        context: what it was read for: "train", "test".
        source: where it lay.
    """

    name: str
    digest: str
    context: str
    source: str


@dataclass(frozen=True)
class View:
    """How a run's children are listed: the params and metrics that are shown.

    Attributes:
        order: the metric whose largest value comes first.
    """

    params: tuple[str, ...]
    metrics: tuple[str, ...]
    order: str


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker shall hold of one run.

    Attributes:
        key: names it for ever; a tracker looks it up by this.
        series: metric -> (step, value).
        note: a text that describes it.
        tables: name -> rows.
        table_files: files that hold a table, as {"columns": names, "data": rows}.
        span: begin and end in milliseconds since 1970; None: when it is told.
        view: how its children are shown.
    """

    key: str
    name: str
    status: Status
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    table_files: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    model: TrackedModel | None = None
    data: tuple[TrackedData, ...] = ()
    span: tuple[int, int] | None = None
    view: View | None = None


@dataclass(frozen=True)
class Shown:
    """Where a tracker shows a run: its id there, and the page below the server's address."""

    run_id: str
    page: str


class TrackingError(UserError):
    """A tracker could not be written; the run's own files are not touched by that."""

    exit_code = 1


class ExperimentDeleted(TrackingError):
    """The experiment of a run was deleted there, where others may well be."""


def unheard(done: int, of: int) -> None:
    """Nobody listens."""


class Tracker(Protocol):
    """Where runs are shown: all that the rest of the program asks of it. Whatever it was told can be told again."""

    @property
    def name(self) -> str:
        """Its address without credentials, for messages and files."""
        ...

    def is_there(self) -> bool:
        """Whether it may hold what it was told; False where its database is gone."""
        ...

    def check_writable(self, experiment: str) -> None:
        """Raises TrackingError where it cannot be written."""
        ...

    def write(
        self, experiment: str, parent: TrackedRun, children: tuple[TrackedRun, ...] = (), heard: Heard = unheard
    ) -> Shown:
        """Bring it to what is said of a run and its children; where the parent is shown. `heard` hears of each child.

        Each is looked up by its key, made where it is not there, gets what it lacks, and ends with its status: nothing
        doubles. Raises TrackingError where it cannot be written.
        """
        ...

    def register(self, experiment: str, key: str, name: str) -> str:
        """Give the model of the run with this key a name in the registry of models; the version that it is there.

        A model that has the name already keeps its version. Raises TrackingError where the run has no model.
        """
        ...

    def page(self, shown: Shown, serve: str) -> str:
        """Where a reader finds a run; `serve`: the command that would serve what no server does."""
        ...
