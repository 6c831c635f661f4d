"""What an interrupted run says of its steps."""

from orchestration.plan import make_plan
from orchestration.scratch import scratch_folder, tell
from orchestration.store import open_store
from tests.orchestration.steps import number, squares, total
from workflows.interruption import Course


def test_steps_in_hand_are_told_with_what_is_kept_of_them(tmp_path):
    store = open_store(tmp_path)
    done, trained, sharded = number(1), number(2), squares(3)
    course = Course(make_plan([total(done, trained, sharded)], store), store)
    course.hear("ran", done, {})
    course.hear("shard", sharded, {"done": 2, "of": 3})
    folder = scratch_folder(store.root, trained.folder)
    folder.mkdir(parents=True)
    tell(folder, 1200, 5000, "loss 3.2")
    assert course.text() == "interrupted: 1 of 4 steps are done and kept"
    assert not course.is_interrupted
    for step in (sharded, trained, total(done)):
        course.hear("interrupted", step, {})
    assert course.text().splitlines() == [
        "interrupted: 1 of 4 steps are done and kept; in hand:",
        f"  {sharded.label}: 2 of 3 shards, which are kept",
        f"  {trained.label}: 1,200 of 5,000; goes on from what is kept of it",
        "  total: will begin again",
    ]
