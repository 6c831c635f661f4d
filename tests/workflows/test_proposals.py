"""Where a search's configurations come from: none twice, no more than asked for, whatever was tried before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from workflows.methods import METHODS
from workflows.proposals import Listed, Suggested, distribution, finished_trial
from workflows.space import Domain, Space
from workflows.trials import Configuration, configuration

KNN, PROBE, CALIBRATION = METHODS["knn"], METHODS["linear-probe"], METHODS["calibration"]
FOUR = {"k": Domain(choice=(1, 2)), "distance": Domain(choice=("cosine", "euclidean"))}
ENDLESS = {"inverse_penalty": Domain(log_uniform=(1e-4, 1.0))}
Score = Callable[[Configuration], float | None]


def record(one: Configuration, validation: float | None = 0.5) -> dict[str, Any]:
    ended = "finished" if validation is not None else "failed"
    return {**one, "ended": ended, "validation": validation, "loss": None, "curve": [], "error": ""}


def drive(proposals: Any, score: Score = lambda _: 0.5) -> list[Configuration]:
    """Take and tell to the end; what was taken, in order."""
    taken: list[Configuration] = []
    while (pack := proposals.take()) is not None:
        assert pack
        taken += pack
        proposals.tell([record(one, score(one)) for one in pack])
    assert proposals.exhausted
    return taken


def keys(configurations: Sequence[Configuration]) -> list[str]:
    return [one["key"] for one in configurations]


def suggested(space: Space, trials: int, seed: int = 0, most: int = 4, method: Any = KNN, **fixed: Any) -> Suggested:
    return Suggested(method, space, fixed, trials, seed, most)


def listed(count: int) -> list[Configuration]:
    """Of two structures in turn."""
    return [configuration(CALIBRATION, {"rank": 16 * (1 + n % 2), "dropout": n / 100}, 0) for n in range(count)]


def test_a_list_is_taken_once_in_packs_of_one_structure() -> None:
    given = listed(7)
    proposals = Listed(CALIBRATION, given, 3)
    assert proposals.total == 7
    assert not proposals.exhausted
    packs = [proposals.take() for _ in range(3)]
    assert [keys(pack or []) for pack in packs] == [keys(given[0:6:2]), keys(given[6:7]), keys(given[1:7:2])]
    assert proposals.exhausted
    assert proposals.take() is None


def test_what_an_earlier_attempt_finished_or_failed_is_not_taken_again() -> None:
    given = listed(6)
    proposals = Listed(CALIBRATION, given, 2)
    proposals.tell([record(given[1]), record(given[4], None)])
    assert sorted(keys(drive(proposals))) == sorted(keys([given[n] for n in (0, 2, 3, 5)]))
    assert proposals.total == 6  # with what was done before


def test_a_list_that_an_earlier_attempt_finished_gives_nothing() -> None:
    given = listed(3)
    proposals = Listed(CALIBRATION, given, 2)
    proposals.tell([record(one) for one in given])
    assert proposals.take() is None
    assert proposals.exhausted


@examples(max_examples=15)
@given(
    trials=st.integers(2, 24),
    seed=st.integers(0, 50),
    most=st.integers(1, 8),
    endless=st.booleans(),
    before=st.integers(0, 4),
)
def test_optuna_never_proposes_a_known_key_and_no_more_than_the_total(
    trials: int, seed: int, most: int, endless: bool, before: int
) -> None:
    method, space = (PROBE, ENDLESS) if endless else (KNN, FOUR)
    earlier = [
        configuration(method, {"inverse_penalty": 0.1 + n / 10} if endless else {"k": n + 1}, seed)
        for n in range(before)
    ]
    proposals = suggested(space, trials, seed, most, method)
    proposals.tell([record(one) for one in earlier])
    taken = drive(proposals, lambda one: one["settings"].get("inverse_penalty", 0.5))
    seen = keys(earlier) + keys(taken)
    assert len(set(seen)) == len(seen)
    assert len(seen) <= max(trials, len(earlier))
    assert len(seen) == max(trials, len(earlier)) or not endless


def test_what_is_under_way_counts_and_is_not_proposed_again() -> None:
    proposals = suggested(ENDLESS, 20, method=PROBE)
    taken: list[Configuration] = []
    while (pack := proposals.take()) is not None:
        taken += pack
    assert len(set(keys(taken))) == 20
    assert proposals.exhausted
    proposals.tell([record(one) for one in taken])
    assert proposals.take() is None


def test_a_small_space_ends_with_all_of_it_and_the_defaults_tried() -> None:
    taken = drive(suggested(FOUR, 50))
    found = [(one["settings"]["k"], one["settings"]["distance"]) for one in taken]
    assert found[0] == (16, "cosine")  # the defaults, which the space does not hold
    assert sorted(found[1:]) == [(1, "cosine"), (1, "euclidean"), (2, "cosine"), (2, "euclidean")]


def test_the_defaults_come_first_with_what_is_fixed_and_once_where_the_space_holds_them() -> None:
    taken = drive(suggested({"distance": Domain(choice=("cosine", "euclidean"))}, 50, k=3))
    assert [one["settings"] for one in taken] == [{"k": 3, "distance": "cosine"}, {"k": 3, "distance": "euclidean"}]


def test_what_an_earlier_attempt_did_counts_and_its_defaults_are_not_tried_again() -> None:
    first = drive(suggested(ENDLESS, 6, method=PROBE))
    proposals = suggested(ENDLESS, 10, method=PROBE)
    proposals.tell([record(one, None if place == 3 else 0.5) for place, one in enumerate(first)])
    assert proposals.total == 10
    again = drive(proposals)
    assert len(again) == 4
    assert not set(keys(first)) & set(keys(again))


def test_one_that_failed_is_not_proposed_again_and_the_search_goes_on() -> None:
    taken = drive(suggested(FOUR, 50), lambda one: None if one["settings"]["k"] == 1 else 0.5)
    assert len(set(keys(taken))) == len(taken) == 5


def test_results_are_learned_from() -> None:
    def distance(one: Configuration) -> float:
        return abs(math.log10(one["settings"]["inverse_penalty"]) + 1.2)

    taken = drive(suggested(ENDLESS, 60, method=PROBE), lambda one: 1 - distance(one) / 4)
    assert sum(map(distance, taken[-20:])) / 20 < 0.58  # half of what random draws would have


def test_results_of_an_earlier_attempt_are_learned_from() -> None:
    def distance(one: Configuration) -> float:
        return abs(math.log10(one["settings"]["inverse_penalty"]) + 1.2)

    proposals = suggested(ENDLESS, 60, method=PROBE)
    earlier = [configuration(PROBE, {"inverse_penalty": 10 ** (-4 + n / 10)}, 0) for n in range(40)]
    proposals.tell([record(one, 1 - distance(one) / 4) for one in earlier])
    taken = drive(proposals, lambda one: 1 - distance(one) / 4)
    assert len(taken) == 20
    assert sum(map(distance, taken[1:])) / 19 < sum(map(distance, earlier)) / 40 / 2


def test_results_outside_the_space_are_known_and_not_learned_from() -> None:
    proposals = suggested(ENDLESS, 5, method=PROBE)
    outside = configuration(PROBE, {"inverse_penalty": 50.0}, 0)
    proposals.tell([record(outside, 1.0)])
    assert len(drive(proposals)) == 4


def test_proposals_follow_the_seed() -> None:
    first, same, other = (drive(suggested(ENDLESS, 12, seed, method=PROBE)) for seed in (1, 1, 2))
    assert keys(first) == keys(same)
    values = [[one["settings"]["inverse_penalty"] for one in taken[1:]] for taken in (first, other)]
    assert not set(values[0]) & set(values[1])


def test_packs_are_of_one_structure_and_small_enough_that_results_come_in_between() -> None:
    space = {"rank": Domain(choice=(16, 32)), "dropout": Domain(uniform=(0.0, 0.5))}
    proposals = suggested(space, 32, most=64, method=CALIBRATION)
    packs = []
    while (pack := proposals.take()) is not None:
        packs.append(pack)
        proposals.tell([record(one) for one in pack])
    assert sum(map(len, packs)) == 32
    assert all(len({one["settings"]["rank"] for one in pack}) == 1 and len(pack) <= 4 for pack in packs)


@pytest.mark.parametrize(
    "domain",
    [
        Domain(choice=(1, 2, 5)),
        Domain(uniform=(0.1, 0.9)),
        Domain(log_uniform=(1e-3, 10)),
        Domain(integer=(2, 7)),
    ],
)
def test_optuna_draws_from_the_same_values(domain: Domain) -> None:
    import optuna

    found = distribution(domain)
    assert type(found).__name__.startswith({"choice": "Cat", "integer": "Int"}.get(domain.kind, "Float"))
    assert getattr(found, "log", False) == (domain.kind == "log_uniform")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [study.ask({"x": found}).params["x"] for _ in range(60)]
    assert all(domain.holds(value) for value in drawn)
    if domain.kind in ("choice", "integer"):
        assert set(drawn) == ({1, 2, 5} if domain.kind == "choice" else set(range(2, 8)))


def test_a_record_as_optuna_has_it_keeps_its_settings_and_score() -> None:
    one = record(configuration(KNN, {"k": 2}, 0), 0.75)
    found = finished_trial(one, FOUR)
    assert (found.params, found.value, found.state.name) == ({"k": 2, "distance": "cosine"}, 0.75, "COMPLETE")
