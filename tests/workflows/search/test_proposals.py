"""Where a search's configurations come from: none twice, no more than asked for, whatever was tried before."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution

from workflows.config.space import Domain, Space
from workflows.methods.registry import METHODS
from workflows.search.proposals import FixedTrials, OptunaTrials, distribution, drawn_value, finished_trial
from workflows.search.trials import Configuration, configuration

KNN, PROBE, CALIBRATION = METHODS["knn"], METHODS["linear-probe"], METHODS["calibration"]
FOUR = {"k": Domain(choice=(1, 2)), "distance": Domain(choice=("cosine", "euclidean"))}
ENDLESS = {"inverse_penalty": Domain(log_uniform=(1e-4, 1.0))}
DEFAULTS = configuration(PROBE, {}, 0)["settings"]
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


def suggested(
    space: Space, trials: int, seed: int = 0, most: int = 4, method: Any = KNN, workers: int = 1, **fixed: Any
) -> OptunaTrials:
    return OptunaTrials(method, space, fixed, trials, seed, lambda _: most, workers)


def in_packs(given: Sequence[Configuration], most: int, workers: int = 1) -> FixedTrials:
    return FixedTrials(CALIBRATION, given, lambda _: most, workers)


def distance(one: Configuration) -> float:
    """From the best of ENDLESS, in decades."""
    return abs(math.log10(one["settings"]["inverse_penalty"]) + 1.2)


def closeness(one: Configuration) -> float | None:
    """A score, and none at all for some settings."""
    return None if one["settings"]["inverse_penalty"] > 0.5 else 1 - distance(one) / 4


WIDE = {
    "learning_rate": Domain(log_uniform=(1e-4, 1e-1)),
    "dropout": Domain(uniform=(0.0, 0.5)),
    "rank": Domain(choice=(16, 32)),
}


def rated(one: Configuration) -> float | None:
    """A score of WIDE, and none at all for some settings."""
    given = one["settings"]
    if given["dropout"] > 0.45:
        return None
    return 1 - abs(math.log10(given["learning_rate"]) + 2) / 4 - given["dropout"] / 2 - (given["rank"] == 16) / 10


def poorly(one: Configuration) -> float | None:
    """The reverse of it."""
    return -found if (found := rated(one)) is not None else None


def listed(count: int) -> list[Configuration]:
    """Of two structures in turn."""
    return [configuration(CALIBRATION, {"rank": 16 * (1 + n % 2), "dropout": n / 100}, 0) for n in range(count)]


def test_a_list_is_taken_once_in_packs_of_one_structure() -> None:
    given = listed(7)
    proposals = in_packs(given, 3)
    assert proposals.total == 7
    assert not proposals.exhausted
    packs = [proposals.take() for _ in range(3)]
    assert [keys(pack or []) for pack in packs] == [keys(given[0:6:2]), keys(given[6:7]), keys(given[1:7:2])]
    assert proposals.exhausted
    assert proposals.take() is None


def test_what_an_earlier_attempt_finished_or_failed_is_not_taken_again() -> None:
    given = listed(6)
    proposals = in_packs(given, 2)
    proposals.tell([record(given[1]), record(given[4], None)])
    assert sorted(keys(drive(proposals))) == sorted(keys([given[n] for n in (0, 2, 3, 5)]))
    assert proposals.total == 6  # with what was done before


def test_a_list_that_an_earlier_attempt_finished_gives_nothing() -> None:
    given = listed(3)
    proposals = in_packs(given, 2)
    proposals.tell([record(one) for one in given])
    assert proposals.take() is None
    assert proposals.exhausted


def sizes(proposals: FixedTrials) -> list[int]:
    found = []
    while (pack := proposals.take()) is not None:
        found.append(len(pack))
    return found


def test_a_list_is_shared_out_so_that_every_worker_gets_a_pack() -> None:
    given = [configuration(CALIBRATION, {"dropout": n / 100}, 0) for n in range(12)]
    assert sizes(in_packs(given, 64, workers=4)) == [3, 3, 3, 3]
    assert sizes(in_packs(given, 2, workers=4)) == [2] * 6  # memory has room for no more
    assert sizes(in_packs(given, 64, workers=50)) == [1] * 12
    assert sizes(in_packs(given, 64)) == [12]


def test_what_an_earlier_attempt_left_is_shared_out_anew() -> None:
    given = [configuration(CALIBRATION, {"dropout": n / 100}, 0) for n in range(12)]
    proposals = in_packs(given, 64, workers=4)
    proposals.tell([record(one) for one in given[:8]])
    assert sizes(proposals) == [1, 1, 1, 1]


def test_the_size_of_a_pack_may_differ_with_what_is_in_it() -> None:
    proposals = FixedTrials(CALIBRATION, listed(8), lambda one: 4 if one["settings"]["rank"] == 16 else 1, 1)
    assert sizes(proposals) == [4, 1, 1, 1, 1]


@examples(max_examples=15)
@given(
    trials=st.integers(2, 24),
    seed=st.integers(0, 50),
    most=st.integers(1, 8),
    workers=st.integers(1, 5),
    endless=st.booleans(),
    before=st.integers(0, 4),
)
def test_optuna_never_proposes_a_known_key_and_no_more_than_the_total(
    trials: int, seed: int, most: int, workers: int, endless: bool, before: int
) -> None:
    method, space = (PROBE, ENDLESS) if endless else (KNN, FOUR)
    earlier = [
        configuration(method, {"inverse_penalty": 0.1 + n / 10} if endless else {"k": n + 1}, seed)
        for n in range(before)
    ]
    proposals = suggested(space, trials, seed, most, method, workers)
    proposals.tell([record(one) for one in earlier])
    taken = keys(drive(proposals, lambda one: one["settings"].get("inverse_penalty", 0.5)))
    assert len(set(taken)) == len(taken) <= trials
    assert not set(taken) & set(keys(earlier))
    assert len(taken) == trials or not endless


@pytest.mark.parametrize("trials", [2, 8, 9, 12, 15, 23, 71])
def test_optuna_proposes_in_eight_waves_at_most(trials: int) -> None:
    waves, proposals = 0, suggested({"dropout": Domain(uniform=(0.0, 0.9))}, trials, most=64, method=CALIBRATION)
    while (pack := proposals.take()) is not None:
        waves += 1
        proposals.tell([record(one) for one in pack])
    assert waves <= 8


def test_optuna_proposes_nothing_that_the_method_refuses() -> None:
    space = {"loss": Domain(choice=("labels", "sm-gt")), "training": Domain(choice=("sm", "mm"))}
    found = [one["settings"] for one in drive(suggested(space, 12, method=METHODS["calibration-paper"]))]
    assert sorted((one["loss"], one["training"]) for one in found) == [
        ("labels", "mm"),
        ("labels", "sm"),
        ("sm-gt", "sm"),
        ("vocabulary", "sm"),  # the defaults
    ]


def test_choices_that_are_neither_number_nor_text_are_drawn_as_they_are() -> None:
    domain = Domain(choice=([4], [8, 4], None, 2))
    found = distribution(domain)
    assert isinstance(found, CategoricalDistribution)
    assert [drawn_value(domain, one) for one in found.choices] == [[4], [8, 4], None, 2]
    trial = finished_trial({"settings": {"hidden": [8, 4]}, "validation": 0.5}, {"hidden": domain})
    assert drawn_value(domain, trial.params["hidden"]) == [8, 4]


@pytest.mark.parametrize(("trials", "width"), [(32, 4), (16, 2), (7, 1)])
def test_a_wave_is_proposed_once_all_of_the_last_has_results(trials: int, width: int) -> None:
    proposals = suggested(ENDLESS, trials, most=1, method=PROBE)
    taken: list[Configuration] = []
    while not proposals.exhausted:
        wave = [proposals.take() for _ in range(width)]
        assert [len(pack or []) for pack in wave] == [1] * width
        new = [one for pack in wave if pack for one in pack]
        taken += new
        for one in reversed(new):
            assert proposals.take() is None
            proposals.tell([record(one)])
        width = min(width, trials - len(taken))
    assert len(set(keys(taken))) == trials
    assert proposals.take() is None


def waves(proposals: OptunaTrials, score: Score, order: random.Random) -> list[list[str]]:
    """What each wave proposed, sorted; packs of a wave come back in any order."""
    found = []
    while True:
        under_way = []
        while (pack := proposals.take()) is not None:
            under_way.append(pack)
        if not under_way:
            assert proposals.exhausted
            return found
        found.append(sorted(key for pack in under_way for key in keys(pack)))
        for pack in order.sample(under_way, len(under_way)):
            proposals.tell([record(one, score(one)) for one in order.sample(pack, len(pack))])


@examples(max_examples=12)
@given(
    most=st.integers(1, 9), workers=st.integers(1, 6), order=st.integers(0, 1000).map(random.Random), seed=st.just(3)
)
def test_proposals_depend_neither_on_packs_nor_workers_nor_on_the_order_of_results(
    most: int, workers: int, order: random.Random, seed: int
) -> None:
    mine = suggested(WIDE, 40, seed, most, CALIBRATION, workers)
    plain = suggested(WIDE, 40, seed, 1, CALIBRATION, 1)
    assert waves(mine, rated, order) == waves(plain, rated, random.Random(0))


def test_proposals_depend_on_the_results() -> None:
    found = [waves(suggested(WIDE, 40, 3, method=CALIBRATION), score, random.Random(0)) for score in (rated, poorly)]
    assert found[0][0] == found[1][0]
    assert found[0][-1] != found[1][-1]


@examples(max_examples=15)
@given(cut=st.integers(0, 40), order=st.integers(0, 1000).map(random.Random), most=st.integers(1, 9))
def test_an_interrupted_search_proposes_what_an_uninterrupted_one_would(
    cut: int, order: random.Random, most: int
) -> None:
    whole = drive(suggested(WIDE, 40, 3, 2, CALIBRATION), rated)
    assert len(whole) == 40
    begun = suggested(WIDE, 40, 3, most, CALIBRATION, order.randint(1, 5))
    known: list[Configuration] = []
    while len(known) < cut and (pack := begun.take()) is not None:
        known += pack
        begun.tell([record(one, rated(one)) for one in pack])
    again = suggested(WIDE, 40, 3, order.randint(1, 9), CALIBRATION, order.randint(1, 5))
    again.tell([record(one, rated(one)) for one in order.sample(known, len(known))])
    assert again.total == 40
    rest = drive(again, rated)
    assert not set(keys(known)) & set(keys(rest))
    assert sorted(keys(known + rest)) == sorted(keys(whole))


def test_a_wave_of_which_some_is_lost_is_completed_before_the_next_is_proposed() -> None:
    whole = drive(suggested(ENDLESS, 32, method=PROBE), closeness)
    again = suggested(ENDLESS, 32, method=PROBE)
    again.tell([record(one, closeness(one)) for one in (*whole[:9], *whole[10:14])])
    assert again.take() == [whole[9]]
    assert again.take() is None
    again.tell([record(whole[9], closeness(whole[9]))])
    assert again.take() == whole[14:16]  # of the wave from 12 to 16, two are known
    again.tell([record(one, closeness(one)) for one in whole[14:16]])
    assert drive(again, closeness) == whole[16:]


def test_a_small_space_ends_with_all_of_it_and_the_defaults_tried() -> None:
    taken = drive(suggested(FOUR, 50))
    found = [(one["settings"]["k"], one["settings"]["distance"]) for one in taken]
    assert found[0] == (16, "cosine")  # the defaults, which the space does not hold
    assert sorted(found[1:]) == [(1, "cosine"), (1, "euclidean"), (2, "cosine"), (2, "euclidean")]


def test_the_defaults_come_first_with_what_is_fixed_and_once_where_the_space_holds_them() -> None:
    taken = drive(suggested({"distance": Domain(choice=("cosine", "euclidean"))}, 50, k=3))
    assert [one["settings"] for one in taken] == [{"k": 3, "distance": "cosine"}, {"k": 3, "distance": "euclidean"}]


def test_one_that_failed_is_not_proposed_again_and_the_search_goes_on() -> None:
    taken = drive(suggested(FOUR, 50), lambda one: None if one["settings"]["k"] == 1 else 0.5)
    assert len(set(keys(taken))) == len(taken) == 5


def test_results_are_learned_from() -> None:
    taken = drive(suggested(ENDLESS, 60, method=PROBE), lambda one: 1 - distance(one) / 4)
    assert sum(map(distance, taken[-20:])) / 20 < 0.58  # half of what random draws would have


def test_the_defaults_are_tried_first_and_learned_from_only_where_the_space_holds_them() -> None:
    outside = {"inverse_penalty": Domain(log_uniform=(0.1, 1.0))}
    assert DEFAULTS["inverse_penalty"] == 0.01

    def told(space: Space, score: float) -> list[str]:
        return keys(
            drive(suggested(space, 30, method=PROBE), lambda one: score if one["settings"] == DEFAULTS else 0.5)
        )

    for space in (ENDLESS, outside):
        assert told(space, 0.9)[0] == told(space, 0.1)[0] == configuration(PROBE, {}, 0)["key"]
    assert told(outside, 0.9) == told(outside, 0.1)
    assert told(ENDLESS, 0.9) != told(ENDLESS, 0.1)


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


def test_the_order_in_which_a_file_lists_its_settings_changes_no_proposal() -> None:
    first, other = (suggested(space, 24, method=CALIBRATION) for space in (WIDE, dict(reversed(WIDE.items()))))
    assert drive(first, rated) == drive(other, rated)


def test_a_record_as_optuna_has_it_keeps_its_settings_and_score() -> None:
    one = record(configuration(KNN, {"k": 2}, 0), 0.75)
    found = finished_trial(one, FOUR)
    assert (found.params, found.value, found.state.name) == ({"k": 2, "distance": "cosine"}, 0.75, "COMPLETE")
