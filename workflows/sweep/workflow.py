"""The kind `sweep`."""

from __future__ import annotations

from workflows.config.sweep import SweepConfig
from workflows.kind import Names, WorkflowKind
from workflows.sweep.graph import sweep


def _names(config: SweepConfig) -> Names:
    return Names(
        models=((("model",), config.model),), tasks=((("task",), config.task),), methods=((("method",), config.method),)
    )


SWEEP = WorkflowKind("sweep", SweepConfig, sweep, _names)
