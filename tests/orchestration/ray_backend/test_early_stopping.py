"""Early stopping, asked by key: whichever batch a configuration is trained in, the rule is Ray Tune's."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from orchestration.ray_backend.early_stopping import EarlyStopper, Stopping

NAN = float("nan")


def asha(grace: int = 2, epochs: int = 20) -> Stopping:
    return Stopping("asha", grace, epochs)


def median(grace: int = 2, epochs: int = 20) -> Stopping:
    return Stopping("median", grace, epochs)


def third(losses: list[float]) -> float:
    """The loss below which a third of these lie, by linear interpolation."""
    ordered, place = sorted(losses), (len(losses) - 1) / 3
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(losses) - 1)] - ordered[low])


@examples(max_examples=50)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=40, unique=True))
def test_asha_ends_at_the_rung_what_is_not_in_the_best_third_of_what_came_before(losses: list[int]) -> None:
    referee, before = EarlyStopper(asha(), {}), []
    for number, loss in enumerate(losses):
        assume(not before or abs(loss - third(before)) > 1e-6)
        expected = [f"key {number}"] if before and loss > third(before) else []
        assert referee.end(2, {f"key {number}": float(loss)}) == expected
        before.append(loss)


def test_asha_keeps_about_a_third_of_many_and_the_best_among_them() -> None:
    losses = {f"key {number}": number / 300 for number in range(300)}
    order = random.Random(0).sample(sorted(losses), len(losses))
    referee = EarlyStopper(asha(), {})
    kept = {key for key in order if not referee.end(2, {key: losses[key]})}
    assert 85 < len(kept) < 120
    assert {f"key {number}" for number in range(20)} <= kept
    assert not kept & {f"key {number}" for number in range(200, 300)} - set(order[:10])


def test_asha_asks_a_whole_batch_as_it_asks_one_after_another() -> None:
    losses = {f"key {number}": loss for number, loss in enumerate([0.5, 0.4, 0.9, 0.1, 0.6, 0.05, 0.7])}
    batch, single = EarlyStopper(asha(), {}), EarlyStopper(asha(), {})
    ended = batch.end(2, losses)
    assert ended == [key for key in losses if single.end(2, {key: losses[key]})]
    assert ended == ["key 2", "key 4", "key 6"]


def test_asha_ends_what_worsens_at_its_rungs_and_at_no_other_epoch() -> None:
    referee, ended = EarlyStopper(asha(grace=2, epochs=30), {}), []
    for epoch in range(1, 30):
        referee.end(epoch, {f"good {number}": 0.1 for number in range(3)})
        if referee.end(epoch, {"worsening": 0.1 if epoch < 3 else 9.0}):
            ended.append(epoch)
    assert ended == [6, 18]


@pytest.mark.parametrize(("epochs", "last"), [(6, 6), (2, 2)])
def test_nothing_is_ended_in_the_last_epoch_where_everything_ends(epochs: int, last: int) -> None:
    referee, longer = EarlyStopper(asha(2, epochs), {}), EarlyStopper(asha(2, 20), {})
    for one in (referee, longer):
        for number in range(5):
            one.end(last, {f"good {number}": 0.1})
    assert longer.end(last, {"poor": 9.0}) == ["poor"]
    assert referee.end(last, {"poor": 9.0}) == []


def test_a_grace_longer_than_the_training_ends_nothing() -> None:
    referee = EarlyStopper(asha(grace=50, epochs=10), {})
    for epoch in range(1, 11):
        assert referee.end(epoch, {f"key {number}": float(number) for number in range(10)}) == []


def test_what_is_no_number_is_not_ended_and_changes_nothing_for_the_others() -> None:
    losses = [0.5, 0.4, 0.9, 0.1, 0.6, 0.05, 0.7]
    plain, mixed = EarlyStopper(asha(), {}), EarlyStopper(asha(), {})
    for number, loss in enumerate(losses):
        heard = mixed.end(2, {f"lost {number}": NAN, f"key {number}": loss})
        assert heard == plain.end(2, {f"key {number}": loss})


def test_an_infinite_loss_changes_nothing_for_the_others() -> None:
    plain, mixed = EarlyStopper(asha(), {}), EarlyStopper(asha(), {})
    for one in (plain, mixed):
        one.end(2, {"good": 0.1})
    for number in range(4):
        mixed.end(2, {f"lost {number}": float("inf")})
    assert plain.end(2, {"poor": 0.5}) == mixed.end(2, {"poor": 0.5}) == ["poor"]


def test_asha_counts_the_curves_of_an_earlier_attempt() -> None:
    curves = {f"key {number}": [1.0, 0.1 * number, 0.1 * number] for number in range(1, 10)}
    told = EarlyStopper(asha(), curves)
    assert told.end(2, {"fresh": 0.5}) == ["fresh"]
    assert told.end(2, {"better": 0.15}) == []
    assert EarlyStopper(asha(), {}).end(2, {"fresh": 0.5}) == []
    short = {key: curve[:1] for key, curve in curves.items()}  # none of them came to a rung
    assert EarlyStopper(asha(), short).end(2, {"fresh": 0.5}) == []


def lockstep(referee: EarlyStopper, curves: Mapping[str, list[float]]) -> dict[str, int]:
    """Train all side by side; the epoch of each that was ended early."""
    going, ended = dict(curves), {}
    for epoch in range(1, max(map(len, curves.values())) + 1):
        for key in referee.end(epoch, {key: curve[epoch - 1] for key, curve in going.items()}):
            ended[key] = epoch
            del going[key]
    return ended


GOOD = {f"good {number}": [1.0, 0.5, 0.4, 0.3, 0.25, 0.2 + number / 100] for number in range(5)}
POOR = [1.0, 0.9, 0.9, 0.9, 0.9, 0.9]


def test_median_ends_what_never_was_as_good_as_the_others_and_nothing_else() -> None:
    assert lockstep(EarlyStopper(median(), {}), {**GOOD, "poor": POOR}) == {"poor": 2}


def test_median_keeps_what_is_in_between_and_what_catches_up_in_time() -> None:
    between = [1.0, 0.5, 0.45, 0.38, 0.3, 0.25]  # worse than each of the others, not than their averages
    assert lockstep(EarlyStopper(median(), {}), {**GOOD, "between": between}) == {}
    slow = EarlyStopper(median(grace=4), {})
    assert lockstep(slow, {**GOOD, "slow": [9.0, 5.0, 1.0, 0.01, 0.01, 0.01]}) == {}


def test_median_needs_three_others() -> None:
    two = dict(list(GOOD.items())[:2])
    assert lockstep(EarlyStopper(median(), {}), {**two, "poor": POOR}) == {}
    three = dict(list(GOOD.items())[:3])
    assert lockstep(EarlyStopper(median(), {}), {**three, "poor": POOR}) == {"poor": 2}


def test_median_ends_nothing_in_the_last_epoch() -> None:
    referee = EarlyStopper(median(grace=6, epochs=6), {})
    assert lockstep(referee, {**GOOD, "poor": POOR}) == {}


def test_median_counts_the_curves_of_an_earlier_attempt_whatever_they_came_to() -> None:
    referee = EarlyStopper(median(), {**GOOD, "poor": POOR, "stopped": [3.0, 3.0]})
    assert referee.end(2, {"fresh": 9.0}) == ["fresh"]
    assert referee.end(2, {"fine": 0.1}) == []


@pytest.mark.parametrize("stopping", [asha(), median()], ids=["asha", "median"])
def test_one_that_was_ended_may_be_trained_anew_where_memory_did_not_suffice_for_its_batch(stopping: Stopping) -> None:
    referee = EarlyStopper(stopping, GOOD)
    assert referee.end(2, {"poor": 9.0}) == ["poor"]
    for epoch in range(1, 7):
        referee.end(epoch, {"poor": 9.0})
    assert referee.end(2, {"another": 9.0}) == ["another"]
