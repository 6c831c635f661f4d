"""Tasks and models by name, and how a reference in a workflow file becomes one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from workflows.config.compare import ModelConfig
from workflows.config.task import TaskConfig
from workflows.config.yaml_file import read_yaml
from workflows.errors import ConfigError, nearest
from workflows.inputs.paths import located

_HERE = Path(__file__).parents[1] / "catalog"
CATALOG_TASKS = _HERE / "tasks"
_YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class Task:
    """A task and the folder its relative paths start from.

    Attributes:
        local_data: a folder whose files replace its source.
        new_rows: a file of rows without labels, in the place of its test rows.
    """

    config: TaskConfig
    base: Path
    local_data: Path | None = None
    new_rows: Path | None = None


@dataclass(frozen=True)
class ModelEntry:
    """A model and the folder its relative path starts from."""

    config: ModelConfig
    base: Path


def task_names() -> list[str]:
    """Names of the catalog's tasks."""
    return sorted(path.stem for path in CATALOG_TASKS.glob("*.yaml"))


def model_names() -> list[str]:
    """Names of the catalog's models."""
    return sorted(path.stem for path in (_HERE / "models").glob("*.yaml"))


def template_names() -> list[str]:
    """Names of the workflow files that `vocabsem init` copies."""
    return sorted(path.stem for path in (_HERE / "templates").glob("*.yaml"))


def template_text(name: str) -> str:
    """One of them, to be written as it is."""
    return (_HERE / "templates" / f"{name}.yaml").read_text(encoding="utf-8")


def find_task(reference: str, base: Path, data_dir: Path | None, problems: list[str] | None = None) -> Task:
    """A task by catalog name or YAML file (relative to `base`).

    With `data_dir`, a catalog task's rows come from `data_dir/<task>/train.jsonl` and `test.jsonl` where that folder is
    there. Raises ConfigError for an unknown name. `problems` are as in `read_yaml`.
    """
    if reference.endswith(_YAML):
        path = located(base, reference)
        return Task(read_yaml(path, TaskConfig, problems), path.parent)
    if reference not in task_names():
        raise ConfigError(
            f"unknown task {reference!r}; {nearest(reference, task_names())} Or name a task's .yaml file."
        )
    path = CATALOG_TASKS / f"{reference}.yaml"
    local = data_dir / reference if data_dir is not None else None
    return Task(read_yaml(path, TaskConfig), path.parent, local if local is not None and local.is_dir() else None)


def find_model(reference: str, base: Path, problems: list[str] | None = None) -> ModelEntry:
    """A model by catalog name, model YAML file, GGUF file, folder, or Hugging Face id (id or id@revision).

    Raises ConfigError where it is none of these. `problems` are as in `read_yaml`.
    """
    if reference.endswith(_YAML):
        path = located(base, reference)
        return ModelEntry(read_yaml(path, ModelConfig, problems), path.parent)
    if reference in model_names():
        path = _HERE / "models" / f"{reference}.yaml"
        return ModelEntry(read_yaml(path, ModelConfig), path.parent)
    if (folder := located(base, reference)).is_dir():
        return ModelEntry(ModelConfig(name=short_name(folder.name), folder=str(folder)), base)
    if reference.endswith(".gguf"):
        return ModelEntry(ModelConfig(name=short_name(folder.stem), gguf=str(folder)), base)
    hub, _, revision = reference.partition("@")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", hub) and not reference.startswith("."):
        return ModelEntry(ModelConfig(name=short_name(hub.split("/")[1]), hub=hub, revision=revision or "main"), base)
    raise ConfigError(
        f"unknown model {reference!r}; {nearest(reference, model_names())} Or name a folder, a .gguf file, a model's "
        ".yaml file, or a Hugging Face id such as openai-community/gpt2."
    )


def short_name(text: str) -> str:
    """A text made a name that YAML files accept."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-") or "model"
