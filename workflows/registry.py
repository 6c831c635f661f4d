"""The kinds of workflow by name. Another kind is a folder of its own, with a `WorkflowKind`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from orchestration.runs.record import RunRecord
from workflows.compare.workflow import COMPARE
from workflows.kind import WorkflowConfig, WorkflowKind
from workflows.layers.workflow import LAYERS
from workflows.pretrain.workflow import PRETRAIN
from workflows.sweep.workflow import SWEEP

KINDS: Mapping[str, WorkflowKind[Any]] = {kind.name: kind for kind in (COMPARE, LAYERS, PRETRAIN, SWEEP)}
WORKFLOWS: Mapping[str, type[Any]] = {name: kind.config for name, kind in KINDS.items()}  # name -> schema


def kind_of(config: WorkflowConfig) -> WorkflowKind[Any]:
    """The kind of a workflow file, by its content."""
    return KINDS[config.workflow]


def kind_of_run(record: RunRecord) -> WorkflowKind[Any]:
    """The kind of the workflow that a run was made from."""
    return KINDS[yaml.safe_load((record.folder / "workflow.yaml").read_text(encoding="utf-8"))["workflow"]]
