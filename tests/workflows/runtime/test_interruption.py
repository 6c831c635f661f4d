"""What an interrupted run says of its steps."""

from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from orchestration.store.scratch import StepProgress, scratch_folder, tell
from tests.orchestration.steps import number, squares, total
from workflows.runtime.interruption import Course


def test_steps_in_hand_are_told_with_what_is_kept_of_them(tmp_path):
    store = open_store(tmp_path)
    done, trained, sharded, fitted, encoded = number(1), number(2), squares(3), number(4), squares(5)
    course = Course(make_plan([total(done, trained, sharded), fitted, encoded], store), store)
    course.hear("ran", done, {})
    course.hear("shard", sharded, {"done": 2, "of": 3})
    course.hear("shard", encoded, {"done": 1, "of": 3})
    for step, told in (
        (trained, StepProgress(1200, 5000, "steps", "loss 3.2")),
        (fitted, StepProgress(2, 9, "epochs")),
        (encoded, StepProgress(1536, 3000, "rows")),
    ):
        tell(scratch_folder(store.root, step.folder), told)
    for step, path in ((trained, "checkpoint"), (fitted, "signs/step"), (encoded, "open/1/part")):
        file = scratch_folder(store.root, step.folder) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert course.text() == "interrupted: 1 of 6 steps are done and kept"
    for step in (sharded, trained, fitted, encoded, total(done)):
        course.hear("interrupted", step, {"more": 0})
    assert course.text().splitlines() == [
        "interrupted: 1 of 6 steps are done and kept; in progress:",
        f"  {sharded.label}: 2 of 3 shards, which are kept",
        f"  {trained.label}: 1,200 of 5,000 steps; will resume from its saved state",
        f"  {fitted.label}: 2 of 9 epochs; will start again",
        f"  {encoded.label}: 1,536 of 3,000 rows; will resume from its saved state",
        "  total: will start again",
    ]
    said: list[str] = []
    course.tell(said.append)
    course.tell(said.append)
    assert said == [course.text()]


def test_the_last_line_says_how_to_go_on(tmp_path):
    store = open_store(tmp_path)
    course = Course(make_plan([number(1)], store), store, "resume with:  vocabsem run a.yaml")
    assert course.text() == "interrupted: 0 of 1 steps are done and kept\nresume with:  vocabsem run a.yaml"
