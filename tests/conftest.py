"""Settings of all tests: quiet, offline, one thread."""

import os
import warnings
from contextlib import ExitStack

os.environ.update(
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    OMP_NUM_THREADS="1",  # of the processes that tests start too
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
)

import pytest
import torch

torch.set_num_threads(1)
for name in ("MLFLOW_TRACKING_URI", "VOCABSEM_STORE"):  # a user's own are none of the tests' business
    os.environ.pop(name, None)

from hypothesis import settings  # noqa: E402

settings.register_profile("machines differ in speed", deadline=None)
settings.load_profile("machines differ in speed")


@pytest.fixture(scope="session")
def ray_cluster():
    """Two cores of its own, whose workers find these tests; never one that runs on the machine already."""
    from orchestration.host.environment import environment
    from orchestration.ray_backend.private_ray import private_ray
    from workflows.runtime.engines import PRELOADED

    with ExitStack() as last:
        with environment({"PYTHONPATH": os.getcwd()}), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own deprecations at start
            last.enter_context(private_ray(PRELOADED, cores=2))
        yield
