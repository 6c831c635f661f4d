"""How a pool counts the actors that it loses before they are ready, as far as no cluster is needed."""

from collections import deque

import pytest

from orchestration.pools import RETRIES, Pool


class Actor:
    """One that tells nothing."""

    def __init__(self):
        self.ready = self

    def remote(self):
        return object()


@pytest.fixture
def pool():
    """Of four actors that have been asked for."""
    made = Pool(Actor, lambda: 4, pending=deque([("step", shard) for shard in range(8)]))
    made.grow()
    assert len(made.starting) == 4
    return made


def lose_all(pool):
    """A node goes that all actors start on; for each, another is asked for. Whether it was once too often."""
    told = []
    for ready in list(pool.starting):
        told.append(pool.lose(ready))
        pool.grow()
    return any(told)


def test_a_node_is_one_loss_however_many_actors_start_on_it(pool):
    assert not lose_all(pool)
    assert (pool.lost, len(pool.starting)) == (1, 4)


def test_losses_in_turn_are_counted_until_they_are_too_many(pool):
    assert [lose_all(pool) for _ in range(RETRIES + 1)] == [False] * RETRIES + [True]


def test_an_actor_that_is_ready_ends_the_count(pool):
    for _ in range(3):
        assert not any(lose_all(pool) for _ in range(RETRIES))
        pool.take(next(iter(pool.starting)))
        assert pool.lost == 0
        pool.idle.clear()  # it is given a shard, and its node goes later
        pool.grow()


def test_only_the_last_loss_of_those_in_turn_is_told_as_too_many(pool):
    """Else one node that goes would fail a step for every actor that starts on it."""
    for _ in range(RETRIES):
        lose_all(pool)
    assert [pool.lose(ready) for ready in list(pool.starting)] == [True, False, False, False]
