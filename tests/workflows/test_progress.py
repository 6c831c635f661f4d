"""Progress: a display on a terminal, plain lines elsewhere."""

import io

from rich.console import Console

from orchestration.executor import InlineEngine, run_plan
from orchestration.plan import make_plan
from orchestration.store import open_store
from tests.orchestration.steps import broken, number, squares, total
from workflows.progress import live_display, plain_lines, watching_on


def run(store, targets, watching):
    """What is said while the targets run."""
    lines = []
    plan = make_plan(targets, store)
    with watching(plan, lines.append) as watch:
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
        "  ran      number 2",
        "  squares 2: shard 1 of 2",
        "  squares 2: shard 2 of 2",
        "  ran      squares 2",
        "  FAILED   broken no [luck]: no [luck]",
        "  skipped  total: needs broken no [luck]",
    ]


def test_the_display_counts_steps_and_shards_and_keeps_failures(tmp_path):
    screen = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    failing = broken("no [luck]")
    store = open_store(tmp_path)
    run(store, [number(3)], plain_lines)

    def watching(plan, say):
        return live_display(plan, say, screen)

    assert run(store, [number(3), number(2), squares(2), failing, total(failing)], watching) == []
    shown = screen.file.getvalue()
    assert "FAILED   broken no [luck]: no [luck]" in shown
    assert "skipped  total: needs broken no [luck]" in shown
    assert "4/4 steps" in shown
    assert "ran      " not in shown


def test_nothing_is_displayed_where_nothing_is_to_be_done(tmp_path):
    store = open_store(tmp_path)
    run(store, [number(2)], plain_lines)
    screen = Console(file=io.StringIO(), force_terminal=True)
    assert run(store, [number(2)], lambda plan, say: live_display(plan, say, screen)) == []
    assert screen.file.getvalue() == ""


def test_what_a_running_step_tells_is_shown_as_a_line_and_as_a_bar(tmp_path):
    told = {"done": 1200, "of": 5000, "note": "loss 4.1, 9,000 tokens/s, 7 min left"}
    plan, lines, screen = make_plan([number(2)], open_store(tmp_path)), [], io.StringIO()
    with plain_lines(plan, lines.append) as watch:
        watch("progress", plan[0].step, told)
    assert lines == ["  number 2: 1,200 of 5,000; loss 4.1, 9,000 tokens/s, 7 min left"]
    with live_display(plan, lines.append, Console(file=screen, force_terminal=True, width=160)) as watch:
        watch("progress", plan[0].step, told)
    assert "number 2: loss 4.1, 9,000 tokens/s, 7 min left" in screen.getvalue()
