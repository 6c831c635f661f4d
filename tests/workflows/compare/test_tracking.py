"""What a tracker is told of a comparison, by one in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestration.store.artifacts import open_store
from orchestration.tracking.tracker import TrackedRun, TrackingError
from tests import tiny
from tests.fake_tracker import MemoryTracker
from tests.workflows.films import films, write_films
from workflows.config.yaml_file import read_workflow
from workflows.registry import WORKFLOWS
from workflows.session import RunSummary, Session, open_session, run

DOCUMENT = """workflow: compare
models: [./model]
tasks: [./films.yaml]
methods: [centroid, linear-probe]
seeds: [0, 1]
experiment: mine
search: {trials: 0}
execution: {executor: inline}
"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    tiny.save(tmp_path / "model", tiny.gpt2())
    write_films(tmp_path, films(32), films(24))  # else both splits are one step
    file = tmp_path / "workflow.yaml"
    file.write_text(DOCUMENT)
    opened = open_session(read_workflow(file, WORKFLOWS), file, open_store(tmp_path / "store"), None, None)
    return replace(opened, tracker=MemoryTracker())


def quiet(_: str) -> None:
    """Nothing is shown."""


def told_of(session: Session) -> list[tuple[str, TrackedRun, tuple[TrackedRun, ...]]]:
    assert isinstance(session.tracker, MemoryTracker)
    return session.tracker.told


def test_a_tracker_is_told_of_the_begin_and_of_every_fit_at_the_end(session: Session) -> None:
    done = run(session, quiet)
    (_, begun, none), (experiment, parent, children) = told_of(session)
    assert (begun.key, begun.status, none) == (parent.key, "RUNNING", ())
    assert (experiment, parent.key, parent.status) == ("mine", done.run_id, "FINISHED")
    assert parent.params == {"models": "model", "tasks": "films", "methods": "centroid, linear-probe"}
    assert parent.metrics["best_score"] == max(result.mean for result, _ in done.results)
    assert [row["result"].split(" / ")[2] for row in parent.tables["results.json"]] == ["centroid", "linear-probe"]
    columns = {tuple(row) for row in parent.tables["results.json"]}
    assert len(columns) == 1, "MLflow's table has the same columns in every row"
    assert all(not isinstance(cell, list | dict) for row in parent.tables["results.json"] for cell in row.values())
    assert [path.name for path in parent.table_files] == ["test-predictions-model-films.json"]
    assert "linear-probe" in parent.note
    scores = {
        (result.method, seed): score
        for result, detail in done.results
        for seed, score in zip(result.seeds, detail.scores[result.metric]["by_seed"], strict=False)  # one has no seeds
    }
    found = {(run.params["method"], int(run.params.get("seed", 0))): run.metrics["score"] for run in children}
    assert found == scores
    assert len({run.key for run in children}) == len(children) == len(scores)
    assert {one.context for one in parent.data} == {"train", "test"}
    assert parent.view is not None
    assert set(parent.view.params) <= set(children[0].params)
    assert {*parent.view.metrics, parent.view.order} <= set(children[0].metrics)
    assert done.shown is not None
    assert session.tracker.page(done.shown, "") == "memory/m2"


def test_a_tracker_that_was_told_is_not_told_again(session: Session) -> None:
    run(session, quiet)
    run(session, quiet)
    assert len(told_of(session)) == 2


def test_a_tracker_that_is_away_is_a_warning_and_is_told_later(session: Session) -> None:
    away = replace(session, tracker=MemoryTracker(error=TrackingError("it is away")))
    done: RunSummary = run(away, quiet)
    assert (done.failures, done.shown) == ([], None)
    assert done.warnings[0].startswith("it is away. The results are safe")
    run(session, quiet)
    assert [parent.status for _, parent, _ in told_of(session)] == ["FINISHED"]
