"""The commands on a cluster's jobs: submit, jobs, logs, stop. From any machine that reaches the cluster's dashboard."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from workflows.cli.options import (
    AsJson,
    DataDir,
    Follow,
    Installed,
    JobId,
    JobServer,
    StorePlace,
    TrackingUri,
    WorkflowFile,
)
from workflows.errors import ConfigError, Interrupted
from workflows.runtime.environment import store_place, tracking_uri

if TYPE_CHECKING:
    from orchestration.ray_backend.jobs import Cluster, Job

_NO_COMMAND = 127


def submit(
    file: WorkflowFile,
    address: JobServer = None,
    follow: Follow = False,
    store: StorePlace = None,
    data_dir: DataDir = None,
    mlflow: TrackingUri = None,
    installed: Installed = False,
    as_json: AsJson = False,
) -> None:
    """Run a workflow as a job on a Ray cluster. Submitting the same file again resumes from the store."""
    from orchestration.graph import key_of
    from workflows.cli.job_bundle import shipment
    from workflows.config.yaml_file import naming_lines, read_workflow
    from workflows.registry import WORKFLOWS

    if follow and as_json:
        raise ConfigError("--follow shows the job's own output and --json prints a document; give one of them")
    config = read_workflow(file, WORKFLOWS)
    place = _for_all_nodes(store_place(store, config.store), file)
    uri = _for_a_job(tracking_uri(mlflow))
    with naming_lines(file):
        carried = shipment(config, file, data_dir, with_source=not installed)
    options = {"--store": place, "--mlflow": uri, "--data-dir": carried.data_dir}
    given = [word for name, value in options.items() if value is not None for word in (name, value)]
    command = ["python", "-m", "workflows", "run", carried.workflow, "--address", "$RAY_ADDRESS", *given]
    stem = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-") or "workflow"
    work = f"{stem}-{key_of({'files': carried.digest(), 'options': given})[:8]}"
    cluster = _cluster(address)
    _say(carried.told())
    with TemporaryDirectory() as folder:
        carried.copy_to(Path(folder))
        job, new = cluster.submit(work, command, Path(folder), {"file": str(file), "store": place})
    if as_json:
        print(json.dumps({**_document(job), "new": new, "bytes": carried.bytes}))
        return
    _say(
        f"job {job.job_id} "
        + ("is submitted" if new else f"already does the same work ({job.status}); no new job is started")
    )
    if follow:
        _follow(cluster, job.job_id)
    else:
        print(job.job_id)
        _say(f"follow it with:  vocabsem logs {job.job_id} --follow --address {cluster.address}")


def jobs(address: JobServer = None, as_json: AsJson = False) -> None:
    """List the VocabSem jobs of the cluster, the newest first."""
    found = _cluster(address).jobs()
    if as_json:
        print(json.dumps({"jobs": [_document(job) for job in found]}))
        return
    width = max([len("job"), *(len(job.job_id) for job in found)])
    print(f"{'job':{width}}  {'status':9}  {'exit':>4}  {'started':16}  {'seconds':>7}  file, store")
    for job in found:
        status = "" if job.exit_code is None else str(job.exit_code)
        started = datetime.fromtimestamp(job.started / 1000).strftime("%Y-%m-%d %H:%M") if job.started else ""
        told = f"{job.told.get('file', '')}, {job.told.get('store', '')}"
        print(f"{job.job_id:{width}}  {job.status:9}  {status:>4}  {started:16}  {_seconds(job):>7.0f}  {told}")


def logs(job: JobId, address: JobServer = None, follow: Follow = False) -> None:
    """Show the output of a job."""
    cluster = _cluster(address)
    if follow:
        _follow(cluster, job)
    else:
        print(cluster.logs(job), end="")


def stop(job: JobId, address: JobServer = None, as_json: AsJson = False) -> None:
    """Stop a job. Finished steps stay in the store, and submitting the file again resumes from there."""
    cluster = _cluster(address)
    ended_before = cluster.job(job).has_ended
    now = cluster.stop(job)
    if as_json:
        print(json.dumps(_document(now)))
    elif ended_before:
        print(f"job {job} has already ended ({now.status})")
    elif now.has_ended:
        print(f"job {job} {now.status}; submit its file again to resume from the store")
    else:
        _say(f"job {job} has not stopped ({now.status}); see the dashboard, {cluster.address}")
        raise typer.Exit(1)


def _follow(cluster: Cluster, job_id: str) -> None:
    """Show a job's output, and end as it ends. Ctrl-C ends the showing alone."""

    def show(part: str) -> None:
        print(part, end="", flush=True)

    try:
        cluster.job(job_id)  # an id that is none is told as that
        job = cluster.follow(job_id, show)
    except KeyboardInterrupt:
        raise Interrupted(
            f"\njob {job_id} continues. Follow it with:  vocabsem logs {job_id} --follow --address {cluster.address}\n"
            f"Stop it with:  vocabsem stop {job_id} --address {cluster.address}"
        ) from None
    if job.status == "SUCCEEDED":
        _say(f"job {job_id} succeeded")
        return
    _say(f"job {job_id} {job.status.lower()}: {_why(job)}")
    raise typer.Exit(job.outcome)


def _why(job: Job) -> str:
    """Why a job did not succeed, and what to do."""
    again = "submit it again to resume from the store"
    if job.status == "STOPPED":
        return f"it was stopped; {again}"
    if job.exit_code == _NO_COMMAND:
        return "the head has no `python` on its PATH; start Ray there with the environment activated"
    if job.exit_code is not None:
        return f"exit status {job.exit_code}; the output above shows the cause. Fix it, then {again}"
    return f"{job.message.strip()} ({again})"


def _cluster(address: str | None) -> Cluster:
    from orchestration.ray_backend.jobs import Cluster

    found = address or os.environ.get("RAY_ADDRESS")
    if not found:
        raise ConfigError("no cluster given; use --address http://HOST:8265 or set RAY_ADDRESS")
    return Cluster(found)


def _for_all_nodes(place: str, file: Path) -> str:
    """A job's own folder is a copy that goes with the job. Raises StoreError for a malformed s3:// address."""
    from orchestration.store.object_store import is_url, parse

    if is_url(place):
        return str(parse(place))
    if not Path(place).is_absolute():
        raise ConfigError(
            f"{file}: the store {place!r} is relative to the job's folder, which is removed with the job; give "
            "the absolute path of a folder that every node can access, or s3://bucket/prefix: --store, "
            "$VOCABSEM_STORE, or `store` in the file"
        )
    return place


def _for_a_job(uri: str | None) -> str | None:
    """Raises ConfigError for an MLflow that the job could not use, or whose password all would see."""
    if uri is None:
        return None
    if re.match(r"[^/]*//[^/\s]*:[^/\s]*@", uri):
        raise ConfigError(
            "--mlflow: a password in the address would be visible in the cluster's list of jobs; start Ray with "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set instead"
        )
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        raise ConfigError(
            f"--mlflow {uri}: a relative file would be removed with the job; write sqlite:////absolute/path.db"
        )
    return uri


def _seconds(job: Job) -> float:
    return ((job.ended or time.time() * 1000) - job.started) / 1000 if job.started else 0.0


def _document(job: Job) -> dict[str, Any]:
    return {
        "job": job.job_id,
        "status": job.status,
        "exit_code": job.exit_code,
        "started": job.started,
        "seconds": round(_seconds(job), 1),
        "file": job.told.get("file"),
        "store": job.told.get("store"),
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
