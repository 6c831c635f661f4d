"""The best of a sweep are fitted anew, and the report says whether the lead is noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from orchestration.execution.work import work_of
from tests.workflows.sweeps import (
    BEST,
    DEFAULT,
    Done,
    retold,
)
from vocabsem_core.baselines.knn import nearest
from vocabsem_core.errors import InputError
from vocabsem_core.statistics.paired_tests import lead
from workflows.errors import ConfigError
from workflows.methods.knn import Knn
from workflows.methods.registry import METHODS
from workflows.steps.fit import materials_of
from workflows.steps.sweep import CONFIRMED, fill_confirm, leads_of_the_first


def test_the_best_are_confirmed_beside_the_defaults_with_seeds_of_their_own(done: Done) -> None:
    names = {candidate["name"]: candidate["settings"] for candidate in done.confirmed["candidates"]}
    assert names["defaults"] == {"k": 3, "distance": "cosine"}
    assert set(map(str, names.values())) == {str(one["settings"]) for one in done.records}
    assert list(done.sweep.confirm.identity["folds"]) == [1, 2, 3, 4]
    means = [candidate["mean"] for candidate in done.confirmed["candidates"]]
    assert means == sorted(means, reverse=True)
    winner, *others = done.confirmed["candidates"]
    for candidate in others:
        lead = done.confirmed["leads"][candidate["name"]]
        assert lead["mean"] == pytest.approx(winner["mean"] - candidate["mean"])
        assert lead["low"] <= lead["mean"] <= lead["high"]
        assert 0 < lead["p"] <= 1
    assert done.confirmed["failed"] == []


def test_a_candidates_score_is_scikit_learns_on_the_four_fifths_the_search_did_not_choose_by(done: Done) -> None:
    work = work_of(done.sweep.search, done.store)
    folds = [materials_of(work, seed=fold, fold=fold) for fold in range(5)]
    for candidate in done.confirmed["candidates"]:
        metric = candidate["settings"]["distance"]
        right = []
        for one in folds[1:]:
            oracle = KNeighborsClassifier(n_neighbors=3, metric=metric, algorithm="brute")
            oracle.fit(one.train.states.numpy(), one.train.labels.numpy())
            right.append(oracle.predict(one.validation.states.numpy()) == one.validation.labels.numpy())
        assert candidate["mean"] == pytest.approx(np.concatenate(right).mean())
        assert candidate["sd"] == pytest.approx(np.std([part.mean() for part in right], ddof=1))
        assert candidate["low"] <= candidate["mean"] <= candidate["high"]
    chosen_by, *others = ({tuple(row) for row in one.validation.states.tolist()} for one in folds)
    assert not chosen_by & set().union(*others)
    assert len(set().union(*others)) == done.confirmed["rows"]


def test_the_lines_shown_say_how_many_and_whether_the_lead_is_noise(done: Done) -> None:
    lines = done.sweep.notes(done.store, True)
    assert lines[0].startswith("2 configurations in ")
    assert lines[0].endswith("0 stopped early, 0 failed, 0 lost")
    (told,) = [line for line in lines if " leads " in line]
    (lead,) = done.confirmed["leads"].values()
    assert told.endswith(f"p {lead['p']:.4f}): " + ("more than noise" if lead["p"] < 0.05 else "within noise"))


@pytest.mark.parametrize(("p", "low", "verdict"), [(0.049, -0.01, "more than noise"), (0.05, 0.01, "within noise")])
def test_the_verdict_is_by_the_randomisation_test(done: Done, p: float, low: float, verdict: str) -> None:
    leads = {"defaults": {"mean": 0.1, "low": low, "high": 0.2, "p": p}}
    lines = done.sweep.notes(retold(done, candidates=[BEST, DEFAULT], leads=leads), True)
    assert lines[-1] == f"best 1 leads defaults by 0.100 ({low:.3f} to 0.200, p {p:.4f}): {verdict}"


def test_the_lead_of_a_winner_is_tested_as_that_of_whichever_pair_it_might_have_been() -> None:
    draw, labels = np.random.default_rng(0), np.ones(400, int)
    right = {
        f"best {place}": (draw.random(400) < share).astype(int) for place, share in ((1, 0.8), (2, 0.7), (3, 0.69))
    }
    found = leads_of_the_first(right, labels, 2, "accuracy")
    pairs = [lead(right[a][None], right[b][None], labels, 2, "accuracy").p for a, b in combinations(right, 2)]
    order = np.argsort(pairs)
    expected = np.maximum.accumulate(np.array(pairs)[order] * (3, 2, 1)).clip(max=1)[np.argsort(order)]
    assert [one["p"] for one in found.values()] == pytest.approx(expected[:2])
    assert list(found) == ["best 2", "best 3"]


def refits(done: Done, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[Any, Any, int], bool]) -> dict[str, Any]:
    """What the confirmation writes where some fits are refused."""
    plain = type(METHODS["knn"]).fit

    def fit(self: Any, settings: Any, materials: Any, seed: int) -> Any:
        if refuse(settings, materials, seed):
            raise InputError(f"no {settings.distance}")
        return plain(self, settings, materials, seed)

    written: dict[str, bytes] = {}
    monkeypatch.setattr(type(METHODS["knn"]), "fit", fit)
    work = work_of(done.sweep.confirm, done.store)
    fill_confirm(replace(work, out=SimpleNamespace(write=written.__setitem__)))  # type: ignore[arg-type]
    return json.loads(written[CONFIRMED])


def test_a_candidate_that_cannot_be_fitted_anew_is_named_and_the_others_are_confirmed(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = refits(done, monkeypatch, lambda settings, rows, _: settings.distance == "euclidean" and rows.fold == 3)
    ((name, settings),) = [
        (one["name"], one["settings"]) for one in done.confirmed["candidates"] if one["name"] != "defaults"
    ]
    assert found["failed"] == [{"name": name, "settings": settings, "error": "no euclidean"}]
    assert [one["name"] for one in found["candidates"]] == ["defaults"]
    assert found["leads"] == {}


def test_of_equal_candidates_the_defaults_win(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def neighbors(self: Any, settings: Any, states: Any, k: int, rows: Any) -> Any:
        return nearest(states, rows.train.states, k, "cosine")  # whatever is asked for

    monkeypatch.setattr(Knn, "neighbors", neighbors)
    found = refits(done, monkeypatch, lambda *_: False)
    assert [one["name"] for one in found["candidates"]] == ["defaults", "best 1"]
    assert found["candidates"][0]["mean"] == found["candidates"][1]["mean"]


def test_where_none_can_be_fitted_anew_the_first_says_why(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"knn: none of the best could be fitted again; the first: no (cos|eucl)"):
        refits(done, monkeypatch, lambda *_: True)


def test_each_fold_is_fitted_with_a_seed_of_its_own(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[str, int, int, int]] = []

    def note(settings: Any, rows: Any, seed: int) -> bool:
        fits.append((settings.distance, rows.fold, rows.seed, seed))
        return False

    assert refits(done, monkeypatch, note)["failed"] == []
    expected = [(name, fold, 0, fold) for name in ("cosine", "euclidean") for fold in (1, 2, 3, 4)]
    assert sorted(fits) == expected
