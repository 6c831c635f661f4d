"""What a step keeps between attempts, and says of its progress."""

from orchestration.executor import InlineEngine, run_plan
from orchestration.plan import make_plan
from orchestration.scratch import scratch_folder, tell, told
from orchestration.store import open_store
from orchestration.work import work_of
from tests.orchestration.steps import number, total


def test_what_was_told_last_is_heard(tmp_path):
    assert told(tmp_path / "none") is None
    tell(tmp_path / "some", 1, 3, "slowly")
    tell(tmp_path / "some", 2, 3, "faster")
    assert told(tmp_path / "some") == {"done": 2, "of": 3, "note": "faster"}


def test_a_scratch_folder_outlives_an_attempt_and_goes_with_the_commit(tmp_path):
    store, step = open_store(tmp_path), number(2)
    scratch = work_of(step, store).scratch
    assert scratch == scratch_folder(store.root, step.folder)
    tell(scratch, 1, 3, "")
    quiet = lambda *_: None  # noqa: E731
    run_plan(make_plan([total(step)], store), lambda: InlineEngine(store, quiet), quiet)
    assert not scratch.exists()
    assert store.find(step) is not None
    assert [artifact.manifest["step"] for artifact in store.artifacts()] == ["number", "total"]
