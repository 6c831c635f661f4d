"""Addresses of runs in MLflow's pages."""

import pytest

from orchestration.tracking.mlflow_client import MlflowTracker
from orchestration.tracking.tracker import Shown


@pytest.mark.parametrize(
    ("uri", "page"),
    [
        (
            "sqlite:////somewhere/mlflow.db",
            "`vocabsem ui` shows it on http://127.0.0.1:5000/#/runs/abc (another --port: the link that it prints)",
        ),
        ("http://user:secret@server:5000/", "http://server:5000/#/runs/abc"),
    ],
)
def test_a_run_has_a_page_and_no_secret_in_its_address(uri: str, page: str) -> None:
    assert MlflowTracker(uri).page(Shown("abc", "#/runs/abc"), "`vocabsem ui`") == page


def test_a_database_that_nobody_serves_has_no_page():
    tracker = MlflowTracker("postgresql://user:secret@h/db")
    assert tracker.page(Shown("abc", "#/runs/abc"), "") == "run abc in postgresql://h/db"
