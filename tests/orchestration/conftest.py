"""A bucket that tests of a store in one share."""

import pytest

from orchestration.store import mirror, s3
from orchestration.store.artifacts import open_store
from tests.s3_server import s3_server


@pytest.fixture(scope="module")
def server():
    s3._client.cache_clear()
    with s3_server() as found:
        yield found
    s3._client.cache_clear()


@pytest.fixture
def bucket(server, monkeypatch):
    """A new bucket's name; this process can use it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.before = None
    yield server.new_bucket()
    server.before = None


@pytest.fixture
def machine(bucket, monkeypatch, tmp_path):
    """The bucket's store as a machine of this name opens it: with copies of its own, and nothing remembered."""

    def on(name="one", prefix="store"):
        monkeypatch.setenv("VOCABSEM_CACHE", str(tmp_path / name))
        mirror._committed.clear()
        return open_store(f"s3://{bucket}/{prefix}")

    return on
