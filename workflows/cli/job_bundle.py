"""What a job takes along: the source of this program, the workflow file and the local files it names.

A path that is relative in a workflow, task or model file is of this machine and goes along, at its place; an absolute
path is the cluster's own, where every node must see it. A job carries little: large data and models belong on a folder
that all nodes share.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import workflows
from orchestration.graph import key_of
from orchestration.store.files import checksum, readable
from workflows.errors import ConfigError, in_field
from workflows.extractors.registry import extractor_kind
from workflows.inputs.catalog import find_task, model_names
from workflows.inputs.paths import located
from workflows.inputs.tables import Split, files_of, split_file
from workflows.kind import Names, WorkflowConfig
from workflows.methods.registry import method_named
from workflows.registry import kind_of
from workflows.runtime.requirements import PACKAGES

MOST_BYTES = 100 * 10**6  # a job server holds what is sent in memory
_INPUTS = "inputs"  # folder of the job that holds the user's files
_YAML = (".yaml", ".yml")
_ROOT = Path(workflows.__file__).parents[1]


@dataclass(frozen=True)
class JobBundle:
    """Files by their place in the job's folder.

    Attributes:
        workflow: place of the workflow file.
        data_dir: place of --data-dir in the job, or its absolute path on the cluster.
    """

    source: dict[str, Path]
    inputs: dict[str, Path]
    workflow: str
    data_dir: str | None

    @property
    def bytes(self) -> int:
        return _bytes({**self.source, **self.inputs}.values())

    def told(self) -> str:
        """What goes along and how large it is, in a line."""
        parts = [f"{_count(self.inputs)} of yours ({readable(_bytes(self.inputs.values()))})"]
        if self.source:
            parts.append(f"{_count(self.source)} of VocabSem ({readable(_bytes(self.source.values()))})")
        return "sends " + " and ".join(parts)

    def digest(self) -> str:
        """Of the user's files, by place and content."""
        return key_of({place: checksum(path) for place, path in self.inputs.items()})

    def copy_to(self, folder: Path) -> None:
        for place, path in {**self.source, **self.inputs}.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / place)


def shipment(config: WorkflowConfig, file: Path, data_dir: Path | None, with_source: bool) -> JobBundle:
    """What a job of a workflow file takes along.

    Raises ConfigError for a file that is not there, for more than a job can carry, and for what a job cannot do.
    """
    file = file.parent.resolve() / file.name
    _check_suit_a_job(config)
    kind, base, local_data = kind_of(config), file.parent, _local_folder(data_dir)
    names = kind.names(config)
    paths = sorted({file, *_named_files(names, base, local_data), *kind.files(config, base)})
    top = Path(os.path.commonpath([path.parent for path in paths] + ([local_data] if local_data else [])))

    far = str(data_dir) if data_dir is not None and data_dir.is_absolute() else None

    def place(path: Path) -> str:
        return str(Path(_INPUTS) / path.relative_to(top))

    carried = JobBundle(
        _source(names) if with_source else {},
        {place(path): path for path in paths},
        place(file),
        place(local_data) if local_data and any(path.is_relative_to(local_data) for path in paths) else far,
    )
    _check_small(carried)
    return carried


def _local_folder(data_dir: Path | None) -> Path | None:
    """The folder of --data-dir where it is a local one."""
    if data_dir is None or data_dir.is_absolute():
        return None
    if not data_dir.is_dir():
        raise ConfigError(f"--data-dir {data_dir}: no such folder; an absolute path refers to the cluster's nodes")
    return data_dir.resolve()


def _named_files(names: Names, base: Path, local_data: Path | None) -> list[Path]:
    """The local files of the tasks, models and methods that a workflow names."""
    found: list[Path] = []
    for place, reference in names.tasks:
        with in_field(*place):
            found += _task_files(reference, base, local_data)
    for place, reference in names.models:
        with in_field(*place):
            found += extractor_kind(reference, base).files(reference, base)
    for place, reference in names.methods:
        if not Path(reference).is_absolute():
            with in_field(*place):  # its mistakes are told here, not a minute later on the cluster
                method = method_named(reference, base)
            found += map(Path, method.files)
    return found


def _task_files(reference: str, base: Path, local_data: Path | None) -> list[Path]:
    if Path(reference).is_absolute():
        return []
    task = find_task(reference, base, local_data)
    files = [located(base, reference)] if reference.endswith(_YAML) else []
    splits: tuple[Split, ...] = ("train", "test")
    if task.local_data is not None:
        return files + [path for split in splits for path in files_of(split_file(task, split))]
    if not files or task.config.source.hub is not None:  # the catalog's own rows go with the source
        return files
    local = [split for split in splits if not Path(task.config.source.file(split)).is_absolute()]
    return files + [path for split in local for path in files_of(split_file(task, split))]


def _source(names: Names) -> dict[str, Path]:
    """This program's files, without the bundled models that the workflow does not name."""
    used = {reference for _, reference in names.models}
    unused = [Path("workflows/catalog/models") / name for name in model_names() if name not in used]
    paths = [path.relative_to(_ROOT) for package in PACKAGES for path in sorted((_ROOT / package).rglob("*"))]
    return {
        str(path): _ROOT / path
        for path in paths
        if (_ROOT / path).is_file()
        and "__pycache__" not in path.parts
        and not any(path.is_relative_to(folder) for folder in unused)
    }


def _check_suit_a_job(config: WorkflowConfig) -> None:
    """Raises ConfigError for what would be lost with the job's folder, or would not run on the cluster."""
    kind_of(config).check_submission(config)
    if config.execution.executor == "inline":
        raise ConfigError(
            "execution.executor: `inline` runs in one process, but a job runs on a cluster: remove this field",
            ("execution", "executor"),
        )


def _check_small(carried: JobBundle) -> None:
    if carried.bytes <= MOST_BYTES:
        return
    path = max(carried.inputs.values(), key=lambda path: path.stat().st_size)
    raise ConfigError(
        f"{carried.told()}, but a job can upload at most {readable(MOST_BYTES)}; the largest is {path} "
        f"({readable(path.stat().st_size)}). Put it into a folder that every node sees, and give its absolute path."
    )


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _count(files: dict[str, Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"
