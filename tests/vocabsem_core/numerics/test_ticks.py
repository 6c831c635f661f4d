"""What loops say of how far they are."""

from __future__ import annotations

from typing import Any

from vocabsem_core.numerics.ticks import listening, part_of_more, tick

Heard = list[tuple[Any, ...]]


def test_a_tick_is_heard_by_whoever_listens_and_costs_nothing_else() -> None:
    heard: Heard = []
    tick(1, 3, "rows")
    with listening(lambda *told: heard.append(told)):
        tick(2, 3, "rows", "slowly")
    tick(3, 3, "rows")
    assert heard == [(2, 3, "rows", "slowly")]


def test_the_listener_within_hears_alone() -> None:
    outer: Heard = []
    inner: Heard = []
    with listening(lambda *told: outer.append(told)):
        with listening(lambda *told: inner.append(told)):
            tick(1, 2, "rows")
        tick(2, 2, "rows")
    assert (inner, outer) == ([(1, 2, "rows", "")], [(2, 2, "rows", "")])


def test_a_part_is_told_as_a_share_of_the_whole() -> None:
    heard: Heard = []
    with (
        listening(lambda *told: heard.append(told)),
        part_of_more(2, 8, "trials", note="best 0.5"),
        part_of_more(10, 40, "epochs"),
    ):
        tick(3, 4, "batches")
    assert heard == [
        (2, 8, "trials", "best 0.5"),
        (2.25, 8, "trials", "10 of 40 epochs, best 0.5"),
        (2 + 10.75 / 40, 8, "trials", "10 of 40 epochs, 3 of 4 batches, best 0.5"),
    ]


def test_a_part_to_which_nobody_listens_is_silent() -> None:
    with part_of_more(0, 2, "folds"):
        tick(1, 2, "epochs")
