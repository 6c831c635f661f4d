"""The workspace that tests of the command line share."""

import shutil

import pytest

from tests.integration.workspace import cli_json, make_workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder with a small task, run inline; and the JSON document of that run. Its store is only to be read."""
    folder = make_workspace(tmp_path_factory.mktemp("workspace"))
    return folder, cli_json(folder, "run", "workflow.yaml", "--executor", "inline")


@pytest.fixture
def own_store(finished, tmp_path):
    """A copy of the finished store that a test may change; its facts are copied too."""
    shutil.copytree(finished[0] / ".vocabsem", tmp_path / "copy")
    return tmp_path / "copy" / "store"
