"""What a step keeps between attempts, and says of its progress."""

import shutil

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.execution.work import work_of
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from orchestration.store.scratch import StepProgress, annotate, begin_anew, scratch_folder, tell, told, withdraw
from tests.orchestration.steps import number, total


def test_what_was_told_last_is_heard(tmp_path):
    assert told(tmp_path / "none") is None
    tell(tmp_path / "some", StepProgress(1, 3, "rows", "slowly"))
    tell(tmp_path / "some", StepProgress(2, 3, "rows", "faster"), at_once=True)
    assert told(tmp_path / "some") == StepProgress(2, 3, "rows", "faster")


def test_what_is_told_often_is_written_seldom(tmp_path):
    for done in range(100):
        tell(tmp_path / "some", StepProgress(done, 100, "rows"))
    assert told(tmp_path / "some").done < 99


def test_parts_are_added_up(tmp_path):
    tell(tmp_path, StepProgress(2, 8, "trials", "best 0.5"))
    tell(tmp_path, StepProgress(0.25, 0, "trials", "25 of 100 epochs"), "pack a")
    tell(tmp_path, StepProgress(0.5, 0, "trials", "50 of 100 epochs"), "pack b")
    assert told(tmp_path) == StepProgress(2.75, 8, "trials", "best 0.5; 50 of 100 epochs")
    withdraw(tmp_path, "pack b")
    assert told(tmp_path).done == 2.25
    begin_anew(tmp_path)
    assert told(tmp_path) is None
    tell(tmp_path, StepProgress(0, 8, "trials"))
    assert told(tmp_path) == StepProgress(0, 8, "trials")


def test_a_note_is_replaced_and_the_amount_stays(tmp_path):
    annotate(tmp_path, "uploading part-00000.arrow: 1 of 9 MB", "0")
    assert told(tmp_path) == StepProgress(0, 0, "", "uploading part-00000.arrow: 1 of 9 MB")
    assert told(tmp_path).amount() == ""
    tell(tmp_path, StepProgress(2, 8, "rows"), "0", at_once=True)
    annotate(tmp_path, "", "0")
    assert told(tmp_path) == StepProgress(2, 8, "rows")


def test_a_worker_that_wakes_after_the_commit_leaves_nothing_behind(tmp_path):
    tell(tmp_path / "some", StepProgress(1, 3, "rows"))
    shutil.rmtree(tmp_path / "some")
    tell(tmp_path / "some", StepProgress(2, 3, "rows"), at_once=True)
    assert not (tmp_path / "some").exists()


def test_a_scratch_folder_outlives_an_attempt_and_goes_with_the_commit(tmp_path):
    store, step = open_store(tmp_path), number(2)
    scratch = work_of(step, store).scratch
    assert scratch == scratch_folder(store.root, step.folder)
    tell(scratch, StepProgress(1, 3, "rows"))
    quiet = lambda *_: None  # noqa: E731
    run_plan(make_plan([total(step)], store), lambda: InlineEngine(store, quiet), quiet)
    assert not scratch.exists()
    assert store.find(step) is not None
    assert [artifact.manifest["step"] for artifact in store.artifacts()] == ["number", "total"]
