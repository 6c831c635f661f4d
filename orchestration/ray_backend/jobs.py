"""Jobs on a Ray cluster: a folder and a command sent through its job server, watched and stopped from any machine.

What a job is about is the caller's. Two submissions of one `work` are told apart by a number: work-1, work-2, ... The
job server refuses an id that is taken, so of two that are sent at the same moment one alone runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from orchestration.errors import ClusterError
from orchestration.host.environment import environment
from orchestration.host.proxies import about_a_proxy

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_MARK = "vocabsem"  # in a job's metadata: the work it does
_GRACE_SECONDS = 60  # for a job that is stopped to end its workers and to tell MLflow, which takes more than Ray's 3
_STOP_SECONDS, _LOOK_SECONDS, _AGAIN_SECONDS = _GRACE_SECONDS + 5.0, 0.5, 2.0
_READY_SECONDS = 60.0  # for a head to take jobs
_EVERY_FILE = {"RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": ""}  # else Ray leaves out what is in .git, .venv and venv
_SHOWN = 5  # of the jobs there are
_LOST = 5  # connections in a row, before following is given up


@dataclass(frozen=True)
class Job:
    """A job as the cluster tells it. Times are in milliseconds since 1970, by the head's clock."""

    job_id: str
    status: str
    told: Mapping[str, str]
    started: int | None
    ended: int | None
    exit_code: int | None
    message: str

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def outcome(self) -> int:
        """The command's exit status; 1 where it was stopped or never came to run."""
        return 0 if self.status == "SUCCEEDED" else self.exit_code or 1


class Cluster:
    """A Ray cluster's job server. Every call raises ClusterError, in one message, where it cannot be used."""

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        self._client = _client(self.address)

    def submit(self, work: str, command: Sequence[str], folder: Path, told: Mapping[str, str]) -> tuple[Job, bool]:
        """Run a command in a copy of a folder.

        Args:
            work: name of the work; while a job with this name runs, no second one is started.
            command: its words; those that begin with $ are environment variables of the cluster.
            folder: uploaded, and the job's working directory.
            told: metadata that the list of jobs shows.

        Returns:
            The job, and whether it is new.
        """
        with _explaining(self.address):
            known = [job for job in self.jobs() if job.told[_MARK] == work]
            if under_way := next((job for job in known if not job.has_ended), None):
                return under_way, False
            job_id = f"{work}-{1 + max((_number(job.job_id) for job in known), default=0)}"
            line = " ".join(word if word.startswith("$") else shlex.quote(word) for word in command)
            try:
                self._send(job_id, line, folder, {**told, _MARK: work})
            except RuntimeError as error:
                if "already exists" not in str(error):
                    raise
                return self.job(job_id), False  # another submission of the same was a moment earlier
            return self.job(job_id), True

    def _send(self, job_id: str, line: str, folder: Path, told: Mapping[str, str]) -> None:
        """Submit a job; a head that has just started needs a while before it takes one."""
        until = time.monotonic() + _READY_SECONDS
        while True:
            try:
                with environment(_EVERY_FILE):
                    self._client.submit_job(
                        entrypoint=line,
                        submission_id=job_id,
                        runtime_env={
                            "working_dir": str(folder),
                            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_GRACE_SECONDS)},
                        },
                        metadata=dict(told),
                    )
                return
            except RuntimeError as error:
                if "No available agent" not in str(error):
                    raise
                if time.monotonic() > until:
                    raise ClusterError(_without_agent(self.address)) from error
                time.sleep(_AGAIN_SECONDS)

    def jobs(self) -> list[Job]:
        """The jobs of ours, the last first."""
        with _explaining(self.address):
            found = [_job(details) for details in self._client.list_jobs() if _MARK in (details.metadata or {})]
        return sorted(found, key=lambda job: job.started or 0, reverse=True)

    def job(self, job_id: str) -> Job:
        """One job. Raises ClusterError where there is none of this id."""
        with _explaining(self.address):
            try:
                return _job(self._client.get_job_info(job_id))
            except RuntimeError as error:
                if "does not exist" not in str(error):
                    raise
        known = ", ".join(job.job_id for job in self.jobs()[:_SHOWN]) or "none"
        raise ClusterError(f"no job {job_id!r} on {self.address}; the last ones there: {known}")

    def logs(self, job_id: str) -> str:
        """All that a job has printed so far."""
        self.job(job_id)
        with _explaining(self.address):
            return self._client.get_job_logs(job_id)

    def follow(self, job_id: str, show: Callable[[str], None]) -> Job:
        """Show what a job prints, from its beginning to its end; the job as it then is.

        A connection that is lost is recomputed. KeyboardInterrupt leaves the job alone.
        """
        shown = lost = 0
        while True:
            before = shown
            try:
                for part in self._parts(job_id, shown):
                    show(part)  # its own errors, of a reader that went away, say, are no lost connection
                    shown += len(part)
                job = self.job(job_id)
            except ConnectionLost as error:
                lost = 0 if shown > before else lost + 1
                if lost > _LOST:
                    raise ClusterError(f"{error} The job itself continues; try again later.") from error
                time.sleep(_AGAIN_SECONDS)
                continue
            if job.has_ended:
                if rest := self.logs(job_id)[shown:]:
                    show(rest)
                return job
            time.sleep(_LOOK_SECONDS)

    def stop(self, job_id: str) -> Job:
        """End a job; it as it then is. One that has ended is left as it is."""
        job = self.job(job_id)
        if not job.has_ended:
            with _explaining(self.address):
                self._client.stop_job(job_id)
            until = time.monotonic() + _STOP_SECONDS
            while not (job := self.job(job_id)).has_ended and time.monotonic() < until:
                time.sleep(_LOOK_SECONDS)
        return job

    def _parts(self, job_id: str, skipped: int) -> Iterator[str]:
        """What a job prints, as it prints it, without the first characters."""
        lines = self._client.tail_job_logs(job_id)
        with _explaining(self.address), asyncio.Runner() as runner:
            while (part := runner.run(_next(lines))) is not None:
                new = part[skipped:]
                skipped = max(0, skipped - len(part))
                if new:
                    yield new


class ConnectionLost(ClusterError):
    """The job server answered before, or may answer soon."""


async def _next(lines: Any) -> str | None:
    try:
        return await anext(lines, None)
    except Exception as error:  # aiohttp has many for a connection that broke
        raise ConnectionError(str(error)) from error


def _checked(address: str) -> str:
    if not _is_web_address(address):
        raise ClusterError(
            f"address {address!r}: expected the cluster's dashboard, such as http://HOST:8265. (HOST:6379 is for a "
            "run that is started on a node of the cluster.)"
        )
    return address.rstrip("/")


def _is_web_address(address: str) -> bool:
    try:
        place = urlsplit(address)
        return place.scheme in ("http", "https") and bool(place.hostname) and place.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def _client(address: str) -> JobSubmissionClient:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # after the import, which sets other levels
    # RAY_API_SERVER_ADDRESS is the one thing that Ray puts above RAY_ADDRESS, which it puts above an argument
    with environment({"RAY_API_SERVER_ADDRESS": address}), _explaining(address):
        return JobSubmissionClient(address)


def _job(details: JobDetails) -> Job:
    return Job(
        details.submission_id or details.job_id or "",
        str(details.status.value),
        details.metadata or {},
        details.start_time,
        details.end_time,
        details.driver_exit_code,
        details.message or "",
    )


def _number(job_id: str) -> int:
    number = job_id.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


@contextmanager
def _explaining(address: str) -> Iterator[None]:
    """Whatever goes wrong between us and the job server, as one message that says what to do."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(about_the_token(address, str(error))) from error
    except (ConnectionError, TimeoutError, requests.exceptions.RequestException) as error:
        raise ConnectionLost(
            f"no Ray job server answers at {address}{about_a_proxy(address)}. Start one with `ray start --head`; its "
            "dashboard's address is http://HOST:8265, and it needs the package ray[default]."
        ) from error
    except OSError as error:  # a full disk, where a job's files are packed
        raise ClusterError(f"this machine could not send a job to {address} ({error}). Mend that and repeat") from error
    except RuntimeError as error:
        told = str(error).splitlines()[0]
        raise ClusterError(f"the Ray job server at {address} refuses: {told}{about_a_proxy(address)}") from error


def _without_agent(address: str) -> str:
    """What it means that a head takes no job for good."""
    return (
        f"{address}: no node of the cluster has an agent that takes jobs (No available agent to submit job). Mostly, "
        "another Ray on the head's machine used the agent's port, 52365, when the head started: check with "
        "`ss -tlnp | grep 52365`, then start the head again with another port, "
        "`ray start --head --dashboard-agent-listen-port=52366 ...`."
    )


def about_the_token(address: str, found: str) -> str:
    """What is wrong with the token that Ray was given, by what Ray says of it, and what to do."""
    wrong = "403" in found or "nvalid" in found
    file = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    given = "RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else file
    if wrong:
        told = "the token is not the cluster's"
    elif os.environ.get("RAY_AUTH_MODE") != "token":
        told = "the cluster requires a token, and RAY_AUTH_MODE is not set to `token`, so none was sent"
    else:
        told = f"the cluster requires a token, and {given} holds none"
    return (
        f"{address}: {told}. On the head, `ray get-auth-token` prints it; put it into a file that only you can read "
        "(mode 600), then set RAY_AUTH_TOKEN_PATH to the file and RAY_AUTH_MODE=token."
    )
