"""A plan as a tree and as a flowchart."""

import dataclasses

import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.drawing import Branch, lines_of, plan_mermaid, plan_tree
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, total


@pytest.fixture
def store(tmp_path):
    store, quiet = open_store(tmp_path), lambda *_: None
    run_plan(make_plan([number(2)], store), lambda: InlineEngine(store, quiet), quiet)
    return store


def test_a_tree_has_its_branches_below_it():
    tree = Branch("a", [Branch("b", [Branch("c"), Branch("d")]), Branch("e", [Branch("f")])])
    assert lines_of(tree) == ["a", "├─ b", "│  ├─ c", "│  └─ d", "└─ e", "   └─ f"]


def test_the_plan_tree_marks_states_and_refers_to_what_was_shown(store):
    targets = [total(number(2), number(3)), total(number(2), factor=2.0)]
    assert plan_tree(targets, make_plan(targets, store)).splitlines() == [
        "total   [run]",
        "├─ number 2   [cached]",
        "└─ number 3   [run]",
        "total x 2.0   [run]",
        "└─ number 2   [cached]   (as above)",
    ]


def test_the_flowchart_has_a_box_a_step_and_an_arrow_an_input(store):
    targets = [total(number(2), number(3)), total(number(2), factor=2.0)]
    lines = plan_mermaid(make_plan(targets, store)).splitlines()
    assert lines[0] == "flowchart LR"
    assert lines[1:5] == [
        '  s0["number 2<br/>cached"]:::cached',
        '  s1["number 3<br/>run"]:::run',
        '  s2["total<br/>run"]:::run',
        '  s3["total x 2.0<br/>run"]:::run',
    ]
    assert lines[5:8] == ["  s0 --> s2", "  s1 --> s2", "  s0 --> s3"]
    assert [line.split()[1] for line in lines[8:]] == ["cached", "run", "blocked"]


def test_a_blocked_step_is_marked_with_what_needs_it(store):
    (store.root / number(2).folder / "part-00000.arrow").write_bytes(b"short")
    plan = make_plan([total(number(2))], store)
    assert plan_tree([total(number(2))], plan) == "total   [blocked]\n└─ number 2   [blocked]"
    assert plan_mermaid(plan).count('<br/>blocked"]:::blocked') == 2


def test_a_label_cannot_break_the_flowchart(store):
    odd = dataclasses.replace(number(4), label='say "x" <b>\n#1`')
    assert '["say #quot;x#quot; #lt;b#gt; #35;1#96;<br/>run"]' in plan_mermaid(make_plan([odd], store))
