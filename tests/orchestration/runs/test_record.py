"""The record of a run: whole lines whatever happens to a write, and one clear error where nothing can be written."""

import json

import pytest

from orchestration.errors import StoreError
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run
from orchestration.store import files
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, total

WORKFLOW = "workflow: test\n"


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def full(monkeypatch):
    """From the call on, the disk has no room for a document."""

    def now():
        def stage(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files, "stage", stage)

    return now


def test_a_document_that_cannot_be_written_is_one_error_that_names_it(store, full):
    record = open_run(store, [number(2)], WORKFLOW)
    full()
    with pytest.raises(StoreError, match=r"results\.json: cannot be written \(No space left on device\).*make room"):
        record.write("results.json", [])


def test_a_run_that_cannot_be_begun_is_one_error(store, full):
    full()
    with pytest.raises(StoreError, match=r"workflow\.yaml: cannot be written \(No space left on device\)"):
        open_run(store, [number(2)], WORKFLOW)


def test_a_store_where_no_run_can_be_made_is_one_error(store):
    (store.root / "runs").write_text("no folder")
    with pytest.raises(StoreError, match=r"workflow\.yaml: cannot be written .*--store"):
        open_run(store, [number(2)], WORKFLOW)


@pytest.mark.parametrize("cut", [b'{"time": "2026', '{"step": "é'.encode()[:-1]])
def test_a_line_that_was_cut_costs_itself_alone(store, cut):
    """A disk that was full, or a machine that went down, within a line; then the run goes on."""
    record = open_run(store, [total(number(2))], WORKFLOW)
    record.event("ran", number(2), {})
    with open(record.folder / "events.jsonl", "ab") as file:
        file.write(cut)
    assert record.keys_made() == [number(2).key]
    record.event("ran", total(number(2)), {})
    assert record.keys_made() == [number(2).key, total(number(2)).key]
    assert json.loads((record.folder / "events.jsonl").read_bytes().splitlines()[-1])["event"] == "ran"


def test_lines_that_an_older_version_ran_together_are_passed_over(store):
    record = open_run(store, [number(2)], WORKFLOW)
    record.event("ran", number(2), {})
    text = (record.folder / "events.jsonl").read_text()
    (record.folder / "events.jsonl").write_text(text[:20] + text + "\n" + text)
    assert record.keys_made() == [number(2).key]
    (planned,) = make_plan([number(2)], store)
    assert planned.why == f"its folder {number(2).folder} is gone; run {record.run_id} had made it"


def test_the_steps_of_an_earlier_version_are_refused(store):
    record = open_run(store, [number(2)], "workflow: a")
    (step,) = record.steps()
    assert (step["label"], step["subject"]) == ("number 2", {})
    del step["subject"]
    record.write("graph.json", {**record.read("graph.json"), "steps": [step]})
    with pytest.raises(StoreError, match=r"recorded by an earlier version; remove .* and run its workflow again"):
        record.steps()
