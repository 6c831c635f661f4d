"""How large a pool is, and how it counts the actors that it loses before they are ready; no cluster is needed."""

from collections import deque
from itertools import product

import pytest

from orchestration.errors import ClusterError
from orchestration.graph import Resources
from orchestration.ray_backend import pools
from orchestration.ray_backend.pools import RETRIES, Pool, group_size, pool_size
from orchestration.ray_backend.tune import WorkerSlots, room


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


@pytest.mark.parametrize(
    ("asked", "nodes", "expected"),
    [
        (Resources(None, None, None), [{"CPU": 8}], (1, {"num_cpus": 8, "num_gpus": 0.0})),
        (Resources(None, None, 2), [{"CPU": 8}], (2, {"num_cpus": 4, "num_gpus": 0.0})),
        (Resources(None, None, 99), [{"CPU": 8}], (8, {"num_cpus": 1, "num_gpus": 0.0})),
        (Resources(None, None, None), [{"CPU": 64}, {"CPU": 16, "GPU": 4}], (4, {"num_cpus": 4, "num_gpus": 1.0})),
        (Resources(None, None, 2), [{"CPU": 0}, {"CPU": 8}, {"CPU": 8}], (2, {"num_cpus": 8, "num_gpus": 0.0})),
        (Resources(None, 0.4, None), [{"CPU": 12, "GPU": 3}], (6, {"num_cpus": 2, "num_gpus": 0.4})),
        (Resources(None, 2.0, None), [{"CPU": 8, "GPU": 3}] * 2, (2, {"num_cpus": 4, "num_gpus": 2.0})),
        (Resources(None, None, None), [{"CPU": 2, "GPU": 8}], (2, {"num_cpus": 1, "num_gpus": 1.0})),
        (Resources(None, None, None), [{"CPU": 0, "GPU": 4}, {"CPU": 8}], (1, {"num_cpus": 8, "num_gpus": 0.0})),
        (Resources(None, None, 3), [{"CPU": 8}, {"CPU": 5}], (3, {"num_cpus": 4, "num_gpus": 0.0})),
        (Resources(0, 0, 5), [{"CPU": 8}], (5, {"num_cpus": 0, "num_gpus": 0})),
    ],
)
def test_a_pool_is_as_large_as_the_nodes_allow(asked, nodes, expected):
    assert pool_size(asked, nodes) == expected


def test_a_worker_that_fits_no_node_is_refused_with_the_numbers():
    with pytest.raises(ClusterError, match="asks for 1 GPUs; the largest node has 0"):
        pool_size(Resources(None, 1.0, None), [{"CPU": 8}])


def test_part_of_a_gpu_beyond_a_whole_one_is_refused():
    with pytest.raises(ClusterError, match=r"asks for 1\.5 GPUs; above one, Ray gives whole ones"):
        pool_size(Resources(1.0, 1.5, None), [{"CPU": 16, "GPU": 2}])


def test_cores_that_no_node_with_gpus_has_are_refused():
    with pytest.raises(ClusterError, match="asks for 32 cores; no node has as many next to its GPUs"):
        pool_size(Resources(32, 1.0, None), [{"CPU": 64}, {"CPU": 16, "GPU": 2}])


def placed(count, options, nodes):
    """Whether so many workers find a place, as Ray gives them: each on one node, a fraction on one GPU."""
    left = [(node["CPU"], [1.0] * node.get("GPU", 0)) for node in nodes]
    for _ in range(count):
        for at, (cores, gpus) in enumerate(left):
            enough = [one for one, free in enumerate(gpus) if free >= min(1, options["num_gpus"])]
            needed = max(1, round(options["num_gpus"])) if options["num_gpus"] else 0
            if cores >= options["num_cpus"] and len(enough) >= needed:
                for one in enough[:needed]:
                    gpus[one] -= min(1, options["num_gpus"])
                left[at] = (cores - options["num_cpus"], gpus)
                break
        else:
            return False
    return True


@pytest.mark.parametrize("gpus", [None, 0.0, 0.4, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("workers", [None, 1, 5, 8, 9])
def test_what_is_counted_finds_a_place_on_uneven_nodes(gpus, workers):
    kinds = [{"CPU": 64, "GPU": 8}, {"CPU": 64, "GPU": 1}, {"CPU": 3, "GPU": 2}, {"CPU": 16}]
    for nodes in product(kinds, repeat=2):
        if all(node.get("GPU", 0) < (gpus or 0) for node in nodes):
            continue
        count, options = pool_size(Resources(None, gpus, workers), nodes)
        assert placed(count, options, nodes), (nodes, count, options)
        assert options["num_cpus"] <= 4 or not options["num_gpus"]


def test_workers_that_train_together_cannot_share_a_gpu():
    nodes = [{"CPU": 16, "GPU": 4}]
    with pytest.raises(ClusterError, match=r"2 workers of 0.5 GPUs each .* cannot share a GPU\. Give each a whole one"):
        group_size(Resources(1.0, 0.5, 2), nodes)
    assert group_size(Resources(None, 0.5, 1), nodes) == {"num_cpus": 4, "num_gpus": 0.5}
    assert group_size(Resources(None, 1.0, 4), nodes) == {"num_cpus": 4, "num_gpus": 1.0}


def test_a_search_has_a_place_for_each_gpu_or_each_core(monkeypatch):
    def places(nodes, *asked):
        monkeypatch.setattr(pools, "alive_nodes", lambda: nodes)
        return room(*asked)

    assert places([{"CPU": 0, "GPU": 4}, {"CPU": 8}], None, 1.0, None) == WorkerSlots(8, 1.0, 0.0)
    assert places([{"CPU": 16, "GPU": 2}], None, None, None) == WorkerSlots(2, 4, 1.0)
    assert places([{"CPU": 16}], None, None, None) == WorkerSlots(16, 1, 0.0)
    assert places([{"CPU": 16}], 2, None, None) == WorkerSlots(2, 8, 0.0)
