"""What a user gives by an argument or by the environment: the store, and MLflow."""

from __future__ import annotations

import os

from workflows.inputs.paths import named


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
