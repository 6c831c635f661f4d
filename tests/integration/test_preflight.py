"""A node of a real cluster is asked for what the steps need of it."""

import dataclasses

import pytest
import torch

from orchestration.errors import ClusterError
from orchestration.graph import Resources
from orchestration.ray_backend import preflight
from tests.orchestration.steps import number

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_gpu_that_torch_cannot_use_stops_only_what_wants_one(tmp_path, monkeypatch):
    gpu, nodes = {"GPU": 1.0, "accelerator_type:H100": 1.0}, preflight._nodes
    listed = lambda: [dataclasses.replace(node, resources={**node.resources, **gpu}) for node in nodes()]  # noqa: E731
    monkeypatch.setattr(preflight, "_nodes", listed)

    def missing(gpus):
        step = dataclasses.replace(number(1), resources=Resources(1, gpus))
        try:
            preflight.preflight(preflight.Needs(tmp_path, [step], ("orchestration",)), {})
        except ClusterError as error:
            return str(error)
        return ""

    assert missing(0.0) == ""
    assert ("cannot use" in missing(1.0)) == ("cannot use" in missing(None)) == (not torch.cuda.is_available())
