"""What is told of an error by its message alone, and what stays a traceback."""

import pytest

from orchestration.errors import Damage, DamagedArtifact, OutOfMemory, StoreError, UserError, exit_code_of
from orchestration.tracking.tracker import TrackingError
from vocabsem_core.errors import InputError
from workflows.errors import ConfigError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreError("x"), 2),
        (ConfigError("x"), 2),
        (InputError("x"), 2),
        (OutOfMemory("x"), 1),
        (TrackingError("x"), 1),
        (DamagedArtifact(Damage("f", "a", "b")), 1),
        (ValueError("x"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_a_users_mistake_has_an_exit_status_and_a_defect_has_none(error, status):
    assert exit_code_of(error) == status
    assert isinstance(error, UserError | InputError) == (status is not None)
