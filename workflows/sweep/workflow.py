"""The kind `sweep`."""

from __future__ import annotations

from workflows.compare.checks import check_parts
from workflows.config.sweep import SweepConfig
from workflows.findings import Checking
from workflows.kind import Names, WorkflowKind
from workflows.sweep.checks import sweep_method
from workflows.sweep.graph import sweep


def _names(config: SweepConfig) -> Names:
    return Names(
        models=((("model",), config.model),), tasks=((("task",), config.task),), methods=((("method",), config.method),)
    )


def _check(config: SweepConfig, checking: Checking) -> None:
    methods = []
    with checking.field():
        methods.append((("method",), sweep_method(config, checking.base)))
    check_parts(_names(config), methods, config.encoding, config.limit, checking)


SWEEP = WorkflowKind("sweep", SweepConfig, sweep, _names, _check)
