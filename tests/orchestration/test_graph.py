"""Keys depend on what decides the output, and on nothing else."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.graph import Resources, Step, canonical, in_order, run_id_of
from tests.orchestration.steps import number, total

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_canonical_text_reads_back_as_the_value(value):
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(st.text(), st.integers()))
def test_order_of_fields_does_not_matter(fields):
    assert canonical(fields) == canonical(dict(reversed(fields.items())))


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, b"x", [float("nan")], float("inf"), print])
def test_what_json_cannot_hold_raises_rather_than_becoming_text(value):
    with pytest.raises((TypeError, ValueError), match="payload"):
        canonical({"field": value})


def test_the_key_of_a_known_payload_never_changes():
    step = Step("encode", "any label", 1, "a:b", {"model": "m", "layers": ["head"], "rcond": 1e-6})
    assert step.payload == {
        "step": "encode",
        "version": 1,
        "identity": {"model": "m", "layers": ["head"], "rcond": 1e-6},
        "inputs": {},
    }
    assert step.key == "8cd52e44970322e8541bd84ec9b0a9bbc44b70ba12248cb7be641e576013d60c"


STEP = Step("a", "label", 1, "m:f", {"x": 1}, {"n": number(3)}, {"path": "p"}, {"device": "cpu"}, Resources(1))


@pytest.mark.parametrize(
    "change",
    [
        {"label": "another"},
        {"run": "m:g"},
        {"local": {"path": "q", "batch_tokens": 1, "device": "cuda"}},
        {"setup": {"device": "cuda"}},
        {"resources": Resources(8, 1, 4, waits=True)},
        {"workers": Resources(2), "cost": "search", "files": ("f",), "bytes": 9, "less_memory": "lower it"},
        {"subject": {"task": "trec"}, "remarks": "m:g", "sources": ("s",)},
        {"inputs": {"n": number(3, path="elsewhere")}},
    ],
)
def test_how_and_where_it_runs_is_not_in_the_key(change):
    assert dataclasses.replace(STEP, **change).key == STEP.key


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"version": 2},
        {"identity": {"x": 2}},
        {"identity": {"x": 1, "y": None}},
        {"inputs": {"n": number(4)}},
        {"inputs": {"m": number(3)}},
    ],
)
def test_what_decides_the_output_is_in_the_key(change):
    assert dataclasses.replace(STEP, **change).key != STEP.key


def test_inputs_come_before_their_readers_and_each_key_once():
    shared = number(2)
    order = list(in_order([total(shared, number(3)), total(shared, number(2), factor=2.0)]))
    keys = [step.key for step in order]
    assert len(keys) == len(set(keys)) == 4
    assert all(keys.index(source.key) < keys.index(step.key) for step in order for source in step.inputs.values())


def test_the_same_steps_are_the_same_run_in_any_order():
    assert run_id_of([number(1), number(2)]) == run_id_of([number(2), number(1)]) != run_id_of([number(1)])
