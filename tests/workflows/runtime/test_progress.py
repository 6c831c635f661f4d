"""Progress: a display on a terminal, plain lines elsewhere."""

import io
import time

from rich.console import Console

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from orchestration.store.scratch import StepProgress
from tests.orchestration.steps import broken, number, squares, total
from workflows.runtime import pace, progress
from workflows.runtime.progress import live_display, looking_in, plain_lines, watching_on


def run(store, targets, watching):
    """What is said while the targets run."""
    lines = []
    plan = make_plan(targets, store)
    with watching(plan, lines.append, looking_in(store)) as watch:
        run_plan(plan, lambda: InlineEngine(store, watch), watch)
    return lines


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_the_display_and_a_file_gets_lines():
    assert watching_on(Terminal()) is live_display
    assert watching_on(io.StringIO()) is plain_lines


def test_plain_lines_name_shards_and_ends(tmp_path):
    failing = broken("no [luck]")
    assert run(open_store(tmp_path), [number(2), squares(2), failing, total(failing)], plain_lines) == [
        "  0 steps are cached, 4 to run",
        "  1 of 4  ran      number 2",
        "  squares 2: shard 1 of 2",
        "  squares 2: shard 2 of 2",
        "  2 of 4  ran      squares 2",
        "  3 of 4  FAILED   broken no [luck]: no [luck]",
        "  4 of 4  skipped  total: needs broken no [luck]",
    ]


def test_the_display_counts_steps_and_shards_and_keeps_failures(tmp_path):
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    failing = broken("no [luck]")
    store = open_store(tmp_path)
    run(store, [number(3)], plain_lines)

    def watching(plan, say, look):
        return live_display(plan, say, look, screen)

    assert run(store, [number(3), number(2), squares(2), failing, total(failing)], watching) == []
    shown = screen.file.getvalue()
    assert "FAILED   broken no [luck]: no [luck]" in shown
    assert "skipped  total: needs broken no [luck]" in shown
    assert "4/4 steps" in shown
    assert "1 cached" in shown
    assert "ran      " not in shown


def test_nothing_is_displayed_where_nothing_is_to_be_done(tmp_path):
    store = open_store(tmp_path)
    run(store, [number(2)], plain_lines)
    screen = Console(file=io.StringIO(), force_terminal=True)
    assert run(store, [number(2)], lambda plan, say, look: live_display(plan, say, look, screen)) == []
    assert screen.file.getvalue() == ""


def test_a_step_under_way_is_told_of_in_lines_and_on_the_display(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_SHOWN_SECONDS", 0.01)
    for name, seconds in (("LOOK_SECONDS", 0.01), ("FIRST_SECONDS", 0.01), ("NEXT_SECONDS", 0.05)):
        monkeypatch.setattr(pace, name, seconds)
    told = [StepProgress(100, 400, "rows"), StepProgress(200, 400, "rows", "best 0.5")]
    plan, lines, screen = make_plan([number(2)], open_store(tmp_path)), [], io.StringIO()

    def look(step):
        return told[0] if len(told) == 1 else told.pop(0)

    def wait_for(shown):
        for _ in range(500):
            if shown():
                return
            time.sleep(0.01)
        raise AssertionError(f"{lines} {screen.getvalue()}")

    with plain_lines(plan, lines.append, look) as watch:
        watch("started", plan[0].step, {})
        wait_for(lambda: any("number 2: 200 of 400 rows" in line and "left; best 0.5" in line for line in lines))
        watch("ran", plan[0].step, {})
    console = Console(file=screen, force_terminal=True, width=160)
    with live_display(plan, lines.append, look, console) as watch:
        watch("started", plan[0].step, {})
        wait_for(lambda: "200 of 400 rows" in screen.getvalue() and "best 0.5" in screen.getvalue())
    assert "number 2" in screen.getvalue()


def test_a_step_that_says_nothing_is_named_with_its_time(tmp_path, monkeypatch):
    for name in ("LOOK_SECONDS", "FIRST_SECONDS"):
        monkeypatch.setattr(pace, name, 0.01)
    plan, lines = make_plan([number(2)], open_store(tmp_path)), []
    with plain_lines(plan, lines.append, lambda step: None) as watch:
        watch("started", plan[0].step, {})
        time.sleep(0.1)
    assert "  number 2: 0 s so far" in lines


def test_of_many_steps_under_way_a_few_are_named_and_the_others_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "LOOK_SECONDS", 1.0)  # all have started by the first look
    monkeypatch.setattr(pace, "FIRST_SECONDS", 0.001)
    plan, lines = make_plan([number(value) for value in range(9)], open_store(tmp_path)), []
    with plain_lines(plan, lines.append, lambda step: None) as watch:
        for planned in plan:
            watch("started", planned.step, {})
        deadline = time.monotonic() + 60
        while "  and 3 more steps are running" not in lines:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert sum("so far" in line for line in lines) == 6
