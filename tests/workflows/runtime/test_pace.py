"""How fast work goes, in words."""

from __future__ import annotations

import pytest

from orchestration.store.scratch import StepProgress
from workflows.runtime.pace import Pace, duration, telling


def heard(*said: tuple[float, StepProgress]) -> Pace:
    pace = Pace("encode test", 100.0)
    for now, told in said:
        pace.hear(told, now)
    return pace


def test_work_that_says_nothing_is_told_with_its_time() -> None:
    assert heard().line(112.0) == "encode test: 12 s so far"


def test_amount_rate_time_left_and_note_are_in_one_line() -> None:
    pace = heard((110.0, StepProgress(0, 4096, "rows")), (130.0, StepProgress(1024, 4096, "rows", "best 0.5")))
    assert pace.rate == 51.2
    assert pace.line(140.0) == "encode test: 1,024 of 4,096 rows, 51 rows/s, 50 s left; best 0.5"


def test_slow_work_is_told_by_the_time_of_each() -> None:
    pace = heard((100.0, StepProgress(0, 4, "epochs")), (160.0, StepProgress(1, 4, "epochs")))
    assert pace.line(160.0) == "encode test: 1 of 4 epochs, 60 s for each of the epochs, 3 min left"


def test_the_rate_is_of_what_was_done_since_it_was_heard_first() -> None:
    assert heard((100.0, StepProgress(1000, 2000, "rows")), (110.0, StepProgress(1100, 2000, "rows"))).rate == 10


@pytest.mark.parametrize("again", [StepProgress(0, 100, "rows"), StepProgress(60, 100, "rows written")])
def test_work_begun_anew_or_of_another_unit_has_a_rate_of_its_own(again: StepProgress) -> None:
    pace = heard((100.0, StepProgress(0, 100, "rows")), (110.0, StepProgress(50, 100, "rows")), (120.0, again))
    assert pace.rate is None
    pace.hear(StepProgress(again.done + 10, 100, again.unit), 130.0)
    assert pace.rate == 1


def test_what_is_told_before_the_first_is_done_is_no_part_of_the_rate() -> None:
    """A search loads and measures for 8 s; then a trial of 100 s goes a hundredth a second."""
    pace = Pace("search", 0.0)
    for now, done, note in ((1.0, 0.0, ""), (8.0, 0.0, "0 of 100 epochs"), (9.0, 0.01, "1"), (10.0, 0.02, "2")):
        pace.hear(StepProgress(done, 6, "trials", note), now)
    assert pace.line(10.0) == "search: 0 of 6 trials, 2 min for each of the trials, 10 min left; 2"


def test_how_much_there_is_need_not_be_known() -> None:
    assert heard((100.0, StepProgress(0, 0, "rows")), (110.0, StepProgress(50, 0, "rows"))).line(110.0) == (
        "encode test: 50 rows, 5.0 rows/s"
    )


@pytest.mark.parametrize(("seconds", "said"), [(8.4, "8 s"), (180, "3 min"), (9000, "2.5 h")])
def test_durations_have_a_persons_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_line_comes_when_it_is_due_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = iter([0.0, 1.0, 5.0, 11.0, 12.0, 41.0]), []
    monkeypatch.setattr("workflows.runtime.pace.time.monotonic", lambda: next(clock))
    hear = telling("MLflow", "runs", said.append)
    for done in (10, 50, 110, 120, 410):
        hear(done, 1000)
    assert said == [
        "  MLflow: 110 of 1,000 runs, 10 runs/s, 89 s left",
        "  MLflow: 410 of 1,000 runs, 10 runs/s, 59 s left",
    ]
