"""Tests on a real GPU. `make test-gpu`; where torch can use none: skipped, with the reason."""

from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("gpu")
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session", autouse=True)
def gpu():
    """The name of the GPU that the tests run on."""
    if not torch.cuda.is_available():
        pytest.skip(f"no GPU here that torch {torch.__version__} can use (torch.cuda.is_available() is False)")
    return torch.cuda.get_device_name()


@pytest.fixture
def half_a_gigabyte():
    """Within the test, this process may take half a gigabyte of the GPU beyond what it holds."""
    torch.cuda.empty_cache()
    torch.zeros(1, device="cuda")
    held = torch.cuda.memory_reserved() + (512 << 20)
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
