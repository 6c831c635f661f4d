"""What a plan's steps will take is told from earlier steps that did the same work, and from no others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestration.graph import Step
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import Store, open_store
from orchestration.store.files import json_bytes
from workflows.cli.plan_text import plan_document, plan_text
from workflows.runtime.estimates import Estimate, estimate, estimate_text

MODEL = {"model": "a" * 64}


def step(name: str, identity: Mapping[str, Any], version: int = 1, **inputs: Step) -> Step:
    return Step(name, f"{name} {identity}", version, "nowhere:nothing", identity, inputs)


def commit(store: Store, one: Step, data: str = "", **provenance: float) -> None:
    writer = store.writer(one)
    writer.begin()
    writer.write("data.json", json_bytes(data))
    writer.commit({"seconds": 99.0, **provenance})


def told(store: Store, *targets: Step) -> Estimate:
    return estimate(make_plan(targets, store), store)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Demonstrations of seed 0, and a fit on them of 8 s."""
    made = open_store(tmp_path / "store")
    shown = step("demonstrations", {"seed": 0})
    commit(made, shown, "x" * 1000, work_seconds=2.0)
    commit(made, step("fit", {"seed": 0, "method": "icl"}, shown=shown), "y" * 500, work_seconds=8.0)
    return made


def test_another_seed_takes_what_the_first_took_and_so_do_the_inputs_that_follow_it(store: Store) -> None:
    new = step("fit", {"seed": 1, "method": "icl"}, shown=step("demonstrations", {"seed": 1}))
    found = told(store, new)
    assert (found.to_run, found.known, found.seconds) == (2, 2, 10.0)
    assert 1500 < found.bytes < 3000
    assert estimate_text(found).startswith("about 10.0 s of work and ")


@pytest.mark.parametrize(
    "changed",
    [
        step("fit", {"seed": 0, "method": "lora"}, shown=step("demonstrations", {"seed": 0})),
        step("fit", {"seed": 0, "method": "icl"}, 2, shown=step("demonstrations", {"seed": 0})),
        step("fit", {"seed": 0, "method": "icl", "epochs": 60}, shown=step("demonstrations", {"seed": 0})),
        step("fit", {"seed": 0, "method": "icl"}),
        step("score", {"seed": 0}),
    ],
)
def test_other_work_has_no_estimate(store: Store, changed: Step) -> None:
    found = told(store, changed)
    assert (found.to_run, found.known, found.seconds, found.bytes) == (1, 0, 0.0, 0)
    assert estimate_text(found) == "time and bytes: no estimate, since no earlier step did the same work"


def test_an_input_of_another_size_has_no_estimate_and_one_of_the_same_has(store: Store) -> None:
    many, as_many = (step("demonstrations", {"rows": name}) for name in ("many", "as many"))
    commit(store, many, "x" * 9000)
    commit(store, as_many, "z" * 1000)
    assert told(store, step("fit", {"seed": 0, "method": "icl"}, shown=many)).known == 0
    assert told(store, step("fit", {"seed": 0, "method": "icl"}, shown=as_many)).seconds == 8.0


def test_another_model_has_no_estimate(store: Store) -> None:
    commit(store, step("encode", MODEL))
    assert told(store, step("encode", {"model": "b" * 64})).known == 0


def test_what_is_not_known_is_counted_beside_what_is(store: Store) -> None:
    known = step("demonstrations", {"seed": 5})
    text = estimate_text(told(store, step("fit", {"seed": 5, "method": "lora"}, shown=known)))
    assert " for 1 of the 2 to run" in text
    assert text.endswith("; no estimate for the other 1")


def test_nothing_to_run_says_nothing(store: Store) -> None:
    assert estimate_text(told(store, step("demonstrations", {"seed": 0}))) == ""


def test_the_plan_ends_with_the_numbers_of_its_steps_and_the_estimate(store: Store) -> None:
    planned = make_plan([step("demonstrations", {"seed": 0}), step("demonstrations", {"seed": 1})], store)
    lines = plan_text(plan_document(planned, store), listed=True).splitlines()
    assert lines[:3] == [
        "cached   demonstrations {'seed': 0}",
        "run      demonstrations {'seed': 1}   because seed 0 -> 1",
        "1 cached, 1 to run, 0 blocked",
    ]
    assert lines[3].startswith("about 2.0 s of work and ")
    assert plan_text(plan_document(planned, store), listed=False).splitlines() == lines[2:]
