"""The page of MLflow that answers which of a run's children is best: a shared view of its experiment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestration.tracking.tracker import View

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLASSIC = {"mlflow.experimentKind": "custom_model_development"}  # for releases that go by it, not by the address
_TRAINING = "workflowType=machine_learning"  # without it MLflow shows its pages for agents
_SHARED = "mlflow.sharedViewState."  # the tag of an experiment that a shared view is kept in


def alone(experiment_id: str, run_id: str) -> str:
    """The page of a run by itself."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{_TRAINING}"


def share(client: MlflowClient, experiment_id: str, run_id: str, view: View) -> str:
    """Keep a view of a run's children in its experiment.

    Args:
        client: of the server.
        experiment_id: of the run.
        run_id: of the parent.
        view: columns and order.

    Returns:
        The page that shows it, as the part of the URL after the host.
    """
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
        "orderByKey": f"metrics.`{view.order}`",
        "orderByAsc": False,
        "selectedColumns": [
            *(f"params.`{name}`" for name in view.params),
            *(f"metrics.`{name}`" for name in view.metrics),
        ],
        "groupBy": None,
    }
    client.set_experiment_tag(experiment_id, f"{_SHARED}{run_id}", json.dumps(state))
    return f"#/experiments/{experiment_id}/runs?{_TRAINING}&viewStateShareKey={run_id}"
