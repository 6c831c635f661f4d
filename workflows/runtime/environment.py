"""What a user gives by arguments and by the environment: the store, MLflow, the command itself."""

from __future__ import annotations

import os
import shlex
import sys

from workflows.inputs.paths import named

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it where it starts a job's command, and there alone


def store_place(given: str | None, configured: str | None) -> str:
    """Where the store is: the argument, the environment, the workflow file, a folder here."""
    if given:
        return named(given, "--store")
    if set_there := os.environ.get("VOCABSEM_STORE"):
        return named(set_there, "$VOCABSEM_STORE")
    return configured or ".vocabsem/store"


def tracking_uri(given: str | None) -> str | None:
    """The MLflow that is asked for; None for the one beside the store."""
    where, uri = ("--mlflow", given) if given else ("$MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI"))
    if not uri:
        return None
    scheme, path = ("sqlite:///", uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else ("", uri)
    return uri if "://" in path else scheme + named(path, where)


def how_to_go_on() -> str:
    """What resumes this command; a job of a cluster runs on a copy that goes with it, so its own is no use later."""
    if _JOB in os.environ:
        return "submit the file again."
    return f"resume with:  {shlex.join(['vocabsem', *sys.argv[1:]])}"
