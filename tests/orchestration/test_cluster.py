"""Addresses, tokens and ends of jobs, as far as no cluster is needed."""

import pytest

from orchestration.cluster import Cluster, Job, _number, about_the_token
from orchestration.errors import ClusterError


def job(status, exit_code=None):
    return Job("j", status, {}, 0, None, exit_code, "")


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "ray://head:10001", "head", "http://", "auto"])
def test_an_address_that_is_no_dashboard_is_told_before_anything_is_tried(address):
    with pytest.raises(ClusterError, match="such as http://HOST:8265"):
        Cluster(address)


@pytest.mark.parametrize(
    ("status", "exit_code", "outcome"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", 1, 1), ("FAILED", None, 1), ("STOPPED", None, 1)],
)
def test_a_job_ends_as_its_command_did(status, exit_code, outcome):
    assert job(status, exit_code).outcome == outcome
    assert job(status).has_ended
    assert not job("RUNNING").has_ended


def test_numbers_of_submissions():
    assert _number("compare-3f9a1b2c-12") == 12
    assert _number("raysubmit_abc") == 0


@pytest.mark.parametrize(
    ("mode", "found", "told"),
    [
        (None, "401 Unauthorized: Missing", "RAY_AUTH_MODE is not set to `token`, so none was sent"),
        ("token", "401 Unauthorized: Missing", "there is none in /nowhere/token"),
        ("token", "403 Forbidden: Invalid", "the token is not the cluster's"),
    ],
)
def test_what_is_wrong_with_a_token_is_told_apart(monkeypatch, mode, found, told):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere/token")
    message = about_the_token("http://head:8265", found)
    assert told in message
    assert "ray get-auth-token" in message
    assert "RAY_AUTH_TOKEN_PATH" in message


def test_a_token_itself_is_never_shown(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cret")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for found in ("401", "403 invalid"):
        assert "s3cret" not in about_the_token("http://head:8265", found)
