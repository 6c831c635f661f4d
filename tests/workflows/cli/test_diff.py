"""Two runs are compared step by step, by label, and result by result."""

import dataclasses

import pytest

from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from tests.orchestration.steps import number, total
from tests.workflows.results.test_model import entry
from workflows.cli.diff import diff_document, diff_text
from workflows.results.model import stored


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def run(store, *targets, results=()):
    record = open_run(store, targets, "workflow: a")
    record.write("results.json", stored(results))
    return record


def test_steps_are_same_changed_or_on_one_side_only(store):
    renamed = dataclasses.replace(number(5), label="number 3")
    a = run(store, total(number(2), number(3)), number(7))
    b = run(store, total(number(2), renamed), number(8))
    found = diff_document(a, b)
    assert found["runs"] == [a.run_id, b.run_id]
    assert (found["same"], found["only_a"], found["only_b"]) == (["number 2"], ["number 7"], ["number 8"])
    assert found["changed"][0] == {
        "label": "number 3",
        "changes": [{"field": "identity.value", "old": 3, "new": 5}],
    }
    text = diff_text(found)
    assert "1 steps are the same" in text
    assert "  number 3\n    value 3 -> 5\n  total\n    input number 3 differs" in text


def test_steps_of_one_label_are_compared_in_their_order(store):
    two = [dataclasses.replace(number(value), label="twin") for value in (1, 2)]
    found = diff_document(run(store, *two), run(store, two[0], number(9)))
    assert (found["same"], found["only_a"]) == (["twin"], ["twin (2)"])


def test_a_step_of_another_name_is_the_same_by_its_key(store):
    renamed = dataclasses.replace(number(2), label="number two")
    found = diff_document(run(store, number(2), number(3)), run(store, renamed, number(4)))
    assert (found["same"], found["renamed"]) == (["number two"], [{"a": "number 2", "b": "number two"}])
    assert (found["only_a"], found["only_b"]) == (["number 3"], ["number 4"])
    assert "1 steps are the same, 1 of them under another name" in diff_text(found)


def test_the_results_of_a_renamed_task_stand_in_one_line(store):
    def counted(task, method, right):
        result, detail = entry(task=task, method=method, mean=right / 10)
        return result, dataclasses.replace(detail, confusion=[[right, 10 - right]])

    old = [counted("old", "knn", 3), counted("old", "affinity", 5), counted("stays", "knn", 3)]
    new = [counted("new", "knn", 3), counted("new", "affinity", 6), counted("stays", "knn", 3)]
    rows = diff_document(run(store, number(2), results=old), run(store, number(3), results=new))["results"]
    assert [(row["task"], row["method"]) for row in rows] == [("new", "knn"), ("new", "affinity"), ("stays", "knn")]
    assert [row["difference"] for row in rows] == [0.0, pytest.approx(0.1), 0.0]


def test_tasks_that_count_differently_are_two_tasks(store):
    a, b = (run(store, number(n), results=[entry(task=f"task {n}")]) for n in (2, 3))
    assert [row["difference"] for row in diff_document(a, b)["results"]] == [None, None]


def test_results_stand_side_by_side_with_their_difference(store):
    a = run(store, number(2), results=[entry(), entry(method="gone")])
    b = run(store, number(3), results=[entry(mean=0.625), entry(method="new")])
    rows = {row["method"]: row for row in diff_document(a, b)["results"]}
    assert rows["knn"]["difference"] == pytest.approx(0.125)
    assert rows["knn"]["a"] == {"mean": 0.5, "low": 0.41, "high": 0.59}
    assert (rows["gone"]["b"], rows["new"]["a"], rows["new"]["difference"]) == (None, None, None)
    text = diff_text(diff_document(a, b))
    assert "0.500 (0.410 to 0.590)   0.625 (0.410 to 0.590)   +0.125" in text


def test_results_of_several_training_sizes_are_compared_each_with_its_own(store):
    sizes = {4: 0.25, 16: 0.375, "full": 0.5}
    a, b = (
        run(store, number(n), results=[entry(mean=mean + more, train_size=size) for size, mean in sizes.items()])
        for n, more in ((2, 0.0), (3, 0.125))
    )
    b.write("results.json", b.read("results.json")[1:])
    found = diff_document(a, b)
    assert [(row["train_size"], row["a"]["mean"], row["difference"]) for row in found["results"]] == [
        (4, 0.25, None),
        (16, 0.375, 0.125),
        ("full", 0.5, 0.125),
    ]
    lines = diff_text(found).splitlines()[-3:]
    names = [line.partition("   ")[0].rstrip() for line in lines]
    assert names == [f"reference / trec / knn{size}" for size in (" / 4 rows per class", " / 16 rows per class", "")]


def test_a_run_that_is_not_done_has_no_results_to_compare(store):
    a, b = run(store, number(2)), open_run(store, [number(3)], "workflow: a")
    assert diff_document(a, b)["results"] == []
    assert diff_text(diff_document(a, b)).endswith("no results to compare")
