"""Tests of the whole: database, servers, browser. `make test-system`; without a program: skipped, with the reason."""

import shutil
from pathlib import Path

import pytest

from tests.integration.workspace import WORKFLOW, make_workspace, write
from tests.system.stack import postgres_programs, running_stack


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("system")
            item.add_marker(pytest.mark.timeout(1200))  # a busy machine takes a minute for each of five servers


@pytest.fixture(scope="session")
def stack():
    if postgres_programs() is None:
        pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
    with running_stack(workers=2) as started:
        yield started


@pytest.fixture(scope="session")
def workspace(stack):
    """A small task and its workflow file, to run on the stack's Ray."""
    folder = stack.folder / "work"
    folder.mkdir()
    make_workspace(folder)
    address = f"127.0.0.1:{stack.ports['ray-head:6379']}"
    write(folder, "workflow.yaml", {**WORKFLOW, "execution": {"address": address}})
    return folder


@pytest.fixture(scope="session")
def chromium():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    return program
