"""Artifacts and runs are found by what a person types; what means nothing or several things is answered with names."""

import os

import pytest

from orchestration.errors import StoreError
from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.lookup import find_artifact, find_either, find_run, runs
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run
from orchestration.store.artifacts import Artifact, open_store
from tests.orchestration.steps import number, total

RESULTS = [{"mean": 0.5}]


@pytest.fixture
def store(tmp_path):
    store, quiet = open_store(tmp_path), lambda *_: None
    target = total(number(2), number(3))
    run_plan(make_plan([target], store), lambda: InlineEngine(store, quiet), quiet)
    open_run(store, [target], "workflow: a").write("results.json", RESULTS)
    return store


def copied(store, step, name):
    """The artifact of a step under another folder name."""
    folder = store.root / step.name / name
    folder.mkdir()
    for path in (store.root / step.folder).iterdir():
        os.link(path, folder / path.name)
    return folder


@pytest.mark.parametrize("length", [4, 16, 40, 64])
def test_an_artifact_is_found_by_any_start_of_its_key(store, length):
    step = number(3)
    for text in (step.key[:length], f"number/{step.key[:length]}", step.key[:length].upper()):
        assert find_artifact(text, store).manifest["key"] == step.key


def test_a_run_is_found_by_its_id_or_as_the_latest(store):
    (record,) = runs(store)
    assert find_run(record.run_id[:5], store).run_id == record.run_id
    assert find_run("latest", store) == find_either("latest", store) == record
    assert find_either(f"runs/{record.run_id[:4]}", store) == record
    assert isinstance(find_either(number(2).key[:8], store), Artifact)


def test_the_latest_run_is_the_one_that_was_run_last(store):
    first = runs(store)[0]
    second = open_run(store, [number(2)], "workflow: b")
    second.write("results.json", RESULTS)
    os.utime(second.folder / "results.json", (2e9, 2e9))
    assert find_run("latest", store).run_id == second.run_id
    os.utime(first.folder / "results.json", (3e9, 3e9))
    assert [record.run_id for record in runs(store)] == [first.run_id, second.run_id]
    assert find_run("latest", store).run_id == first.run_id


@pytest.mark.parametrize("results", [None, []])
def test_the_latest_run_is_none_that_has_not_come_to_results(store, results):
    """It is running, was interrupted, or failed."""
    (first,) = runs(store)
    second = open_run(store, [number(2)], "workflow: b")
    if results is not None:
        second.write("results.json", results)
    os.utime(second.folder / "graph.json", (2e9, 2e9))
    assert runs(store)[0].run_id == second.run_id
    assert find_run("latest", store).run_id == find_either("latest", store).run_id == first.run_id
    first.write("results.json", [])
    os.utime(first.folder / "results.json", (1e9, 1e9))
    with pytest.raises(
        StoreError, match=f"no run has results yet; the last that was started, {second.run_id}, is runn"
    ):
        find_run("latest", store)


def test_too_few_digits_are_refused(store):
    with pytest.raises(StoreError, match=r"'abc' is too short; expected at least the first 4"):
        find_artifact("abc", store)


def test_several_matches_are_all_named(store):
    key = number(2).key[:16]
    other = copied(store, number(2), key[:8] + ("0" if key[8] != "0" else "1") * 8)
    with pytest.raises(StoreError, match=r"means several: ") as told:
        find_artifact(key[:6], store)
    assert f"number/{key}" in str(told.value)
    assert f"number/{other.name}" in str(told.value)
    assert find_artifact(key[:9], store).folder.name == key


def test_no_match_names_the_nearest(store):
    key = number(2).key
    wrong = key[:4] + ("0" if key[4] != "0" else "1") + key[5]
    with pytest.raises(StoreError, match=rf"no artifact '{wrong}' in .*the nearest: number/{key[:16]}"):
        find_artifact(wrong, store)
    with pytest.raises(StoreError, match=rf"the nearest is number/{key}"):
        find_artifact(key[:20] + "xyz", store)
    with pytest.raises(StoreError, match="no artifact or run 'total/"):
        find_either(f"total/{key[:8]}", store)


def test_a_store_without_runs_says_how_one_is_made(tmp_path):
    with pytest.raises(StoreError, match="no run yet; run a workflow first"):
        find_run("latest", open_store(tmp_path))
