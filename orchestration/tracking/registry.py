"""The tracker of an address."""

from __future__ import annotations

from pathlib import Path

from orchestration.tracking.mlflow_client import MlflowTracker, default_uri
from orchestration.tracking.tracker import Tracker


def open_tracker(uri: str | None, store: Path) -> Tracker:
    """The tracker at an address; None: a database beside the store's folder."""
    return MlflowTracker(uri or default_uri(store))
