"""Costs read from artifacts: what is shared is charged in full, what does not say is not recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.graph import Step
from orchestration.store.artifacts import Store, open_store
from orchestration.store.files import json_bytes
from workflows.results.costs import Ledger
from workflows.results.model import Costs


def step(name: str, number: int = 0, **inputs: Step) -> Step:
    cost = "basis" if name == "head" else name
    return Step(name, f"{name} {number}", 1, "nowhere:nothing", {"number": number}, inputs, cost=cost)


def commit(store: Store, one: Step, files: dict[str, Any] | None = None, **provenance: float) -> None:
    writer = store.writer(one)
    writer.begin()
    for name, document in (files or {}).items():
        writer.write(name, json_bytes(document))
    writer.commit(provenance)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_a_fit_is_charged_all_that_it_reads_once_and_the_mean_over_seeds(store: Store) -> None:
    encodes = {"train": step("encode", 1), "test": step("encode", 2)}
    basis = step("basis", 0, head=step("head"))
    search = step("search", 0, train=encodes["train"], basis=basis)
    fits = {seed: step("fit", seed, search=search, basis=basis, **encodes) for seed in (0, 1)}
    commit(store, encodes["train"], work_seconds=100.0, peak_rss=9e9)
    commit(store, encodes["test"], work_seconds=20.0)
    commit(store, basis.inputs["head"], work_seconds=1.0)
    commit(store, basis, work_seconds=2.0)
    commit(store, search, {"trials.json": {"trials": [{}] * 6}}, work_seconds=30.0, peak_rss=5e8)
    commit(store, fits[0], work_seconds=3.0, peak_rss=4e8)
    commit(store, fits[1], work_seconds=5.0, peak_rss=6e8, peak_cuda=7e8)
    ledger = Ledger(store)
    found = ledger.costs(fits)
    assert (found.encode, found.basis, found.search, found.fit) == (120.0, 3.0, 30.0, 4.0)
    assert (found.total, found.marginal) == (157.0, 34.0)
    assert (found.peak_rss, found.peak_cuda) == (6e8, 7e8)
    assert found.states_bytes is not None
    assert found.states_bytes > 0
    assert ledger.trials(fits) == 6


def test_demonstrations_of_a_seed_are_charged_to_that_seed(store: Store) -> None:
    fits = {seed: step("fit", seed, test=step("encode", seed)) for seed in (0, 1)}
    for seed, fit in fits.items():
        commit(store, fit.inputs["test"], work_seconds=10.0 + seed)
        commit(store, fit, work_seconds=1.0)
    assert Ledger(store).costs(fits).encode == 10.5
    assert Ledger(store).trials(fits) is None


def test_what_a_step_of_an_older_version_does_not_say_is_not_recorded(store: Store) -> None:
    fit = step("fit", 0, test=step("encode"))
    commit(store, fit.inputs["test"])
    commit(store, fit, work_seconds=1.0)
    found = Ledger(store).costs({0: fit})
    assert (found.encode, found.fit, found.total, found.marginal) == (None, 1.0, None, 1.0)


def test_states_that_were_removed_or_damaged_are_not_recorded(store: Store) -> None:
    removed, damaged = step("encode", 1), step("encode", 2)
    commit(store, damaged, {"extra.json": {}}, work_seconds=1.0)
    (store.root / damaged.folder / "extra.json").write_text("longer than it was")
    for number, source in enumerate((removed, damaged)):
        fit = step("fit", number, test=source)
        commit(store, fit, work_seconds=1.0)
        found = Ledger(store).costs({0: fit})
        assert (found.total, found.states_bytes, found.fit) == (None, None, 1.0)


def test_nothing_is_charged_for_what_a_method_does_not_read(store: Store) -> None:
    fit = step("fit")
    commit(store, fit, work_seconds=7.0)
    found = Ledger(store).costs({0: fit})
    assert (found.encode, found.basis, found.search, found.total) == (0.0, 0.0, 0.0, 7.0)
    assert Costs().total is None


def test_a_step_with_an_unknown_cost_is_named(tmp_path: Path) -> None:
    fit = replace(step("fit"), cost="fitting")
    with pytest.raises(ValueError, match=r"step 'fit' has cost 'fitting'; expected one of encode, basis, search, fit$"):
        Ledger(open_store(tmp_path)).costs({0: fit})
