"""What Ray Train's trainer is made to leave out."""

import pytest
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback

from orchestration.ray_backend.trainer import Trainer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own
def test_no_process_for_datasets_is_started_and_all_else_is_kept():
    usual, ours = (
        [type(one) for one in kind(lambda: None)._create_default_callbacks()] for kind in (TorchTrainer, Trainer)
    )
    assert DatasetsCallback in usual
    assert ours == [kind for kind in usual if kind is not DatasetsCallback]
