"""Addresses, tokens, proxies, output and ends of jobs, as far as no cluster is needed."""

import os
from types import SimpleNamespace

import pytest

from orchestration.errors import ClusterError
from orchestration.host.proxies import about_a_proxy
from orchestration.ray_backend import jobs
from orchestration.ray_backend.jobs import Cluster, Job, _number, about_the_token


def job(status, exit_code=None):
    return Job("j", status, {}, 0, None, exit_code, "")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:6379", "ray://head:10001", "head", "http://", "auto", "http://[abc", "http://head:x"]
)
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
        ("token", "401 Unauthorized: Missing", "/nowhere/token holds none"),
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


@pytest.fixture
def head(monkeypatch):
    """A cluster whose job has printed three lines; `breaks` end its connections, each after a line."""
    breaks = []

    async def tail_job_logs(_):
        for number in range(3):
            yield f"line {number}\n"
            if breaks:
                raise breaks.pop(0)

    ended = SimpleNamespace(value="SUCCEEDED")
    details = SimpleNamespace(
        submission_id="j", status=ended, metadata={}, start_time=0, end_time=1, driver_exit_code=0, message=""
    )
    client = SimpleNamespace(
        tail_job_logs=tail_job_logs,
        get_job_info=lambda _: details,
        get_job_logs=lambda _: "line 0\nline 1\nline 2\n",
    )
    monkeypatch.setattr(jobs, "_client", lambda _: client)
    monkeypatch.setattr(jobs, "_AGAIN_SECONDS", 0.0)
    found = Cluster("http://head:8265")
    return SimpleNamespace(cluster=found, client=client, breaks=breaks)


def test_output_goes_on_where_a_connection_broke(head):
    head.breaks += [RuntimeError("the socket closed"), OSError("and again")]
    shown = []
    assert head.cluster.follow("j", shown.append).status == "SUCCEEDED"
    assert "".join(shown) == "line 0\nline 1\nline 2\n"


def test_a_reader_that_goes_away_is_not_a_lost_connection(head):
    """As in `vocabsem submit --follow | head`."""
    shown = []

    def show(part):
        shown.append(part)
        raise BrokenPipeError("the pipe is closed")

    with pytest.raises(BrokenPipeError):
        head.cluster.follow("j", show)
    assert shown == ["line 0\n"]


def test_a_folder_that_cannot_be_packed_is_not_a_lost_connection(head, tmp_path):
    def submit_job(**_):
        raise OSError(28, "No space left on device")

    head.client.list_jobs = list
    head.client.submit_job = submit_job
    with pytest.raises(ClusterError, match="No space left on device") as told:
        head.cluster.submit("work", ["true"], tmp_path, {})
    assert not isinstance(told.value, jobs.ConnectionLost)


def test_a_head_without_an_agent_is_told_with_the_way_out(head, monkeypatch, tmp_path):
    """As where another Ray of the machine held the agent's port when the head started."""

    def submit_job(**_):
        raise RuntimeError("Request failed with status code 500: No available agent to submit job, please try again")

    head.client.list_jobs = list
    head.client.submit_job = submit_job
    monkeypatch.setattr(jobs, "_READY_SECONDS", 0.0)
    with pytest.raises(ClusterError, match=r"52365.*--dashboard-agent-listen-port=") as told:
        head.cluster.submit("work", ["true"], tmp_path, {})
    assert "refuses" not in str(told.value)


def test_every_file_of_a_job_is_sent_whatever_its_folder_is_called(head, monkeypatch, tmp_path):
    """Ray's own client packs the folder; what it leaves out by default is data of the user's like any other."""
    from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

    packed = []

    def submit_job(runtime_env, **_):
        upload_working_dir_if_needed(
            dict(runtime_env),
            include_gitignore=True,
            scratch_dir=str(tmp_path),
            upload_fn=lambda folder, excludes, is_file=False: packed.append(excludes),
        )

    monkeypatch.delenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", raising=False)
    head.client.list_jobs = list
    head.client.submit_job = submit_job
    head.cluster.submit("work", ["true"], tmp_path, {})
    assert packed == [[]]
    assert "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES" not in os.environ


def test_a_job_that_is_stopped_has_time_for_its_last_words(head, tmp_path):
    """Ray ends it after 3 s, unless the job's own environment, which its supervisor shares, says otherwise."""
    sent = []
    head.client.list_jobs = list
    head.client.submit_job = lambda runtime_env, **_: sent.append(runtime_env)
    head.cluster.submit("work", ["true"], tmp_path, {})
    assert 10 <= int(sent[0]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) < jobs._STOP_SECONDS


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, False),
        ({"http_proxy": "http://somebody:s3cret@proxy.example:3128"}, True),
        ({"all_proxy": "http://proxy.example:3128"}, True),
        ({"https_proxy": "http://proxy.example:3128"}, False),
        ({"http_proxy": "http://proxy.example:3128", "no_proxy": "head"}, False),
    ],
)
def test_a_proxy_between_us_and_the_cluster_is_told(monkeypatch, given, told):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = about_a_proxy("http://head:8265")
    assert ("through the proxy proxy.example" in found, "add head to no_proxy" in found) == (told, told)
    assert "s3cret" not in found
