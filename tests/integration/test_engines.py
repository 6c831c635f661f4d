"""Both engines run a graph alike: order, sharing, failures, resume by shard."""

import dataclasses
from pathlib import Path

import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import Resources
from orchestration.ray_backend import engine as ray_engine
from orchestration.ray_backend import pools
from orchestration.ray_backend.engine import RayEngine
from orchestration.runs.plan import make_plan
from orchestration.store.arrow import column_array, read_table
from orchestration.store.artifacts import open_store
from tests.integration.placed import LostAtFirst
from tests.orchestration.steps import broken, number, squares, total, waiting

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(params=[InlineEngine, RayEngine])
def run(request, tmp_path):
    """Run targets on a store; outcomes by label, and the events."""
    store = open_store(tmp_path / "store")

    def call(*targets):
        events = []
        plan = make_plan(targets, store)
        outcomes = run_plan(
            plan,
            lambda: request.param(store, lambda *event: events.append(event)),
            lambda *event: events.append(event),
        )
        call.events = [(kind, step.label) for kind, step, _ in events]
        return {entry.step.label: outcomes[entry.step.key] for entry in plan}

    call.store = store
    return call


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def states(outcomes):
    return {label: outcome.state for label, outcome in outcomes.items()}


def test_results_are_right_and_made_once(run, tmp_path):
    log = tmp_path / "log"
    shared = number(4, log=str(log))
    target = total(shared, number(3, log=str(log)), log=str(log))
    run(target, total(shared, factor=2.0))
    assert run.store.find(target).json("total.json") == (0 + 1 + 2 + 3) + (0 + 1 + 2)
    assert run.store.find(total(shared, factor=2.0)).json("total.json") == 2 * (0 + 1 + 2 + 3)
    assert sorted(lines(log)) == ["number", "number", "total"]


def test_a_second_run_is_all_cached_and_opens_no_engine(run):
    run(total(number(2)))

    def no_engine():
        raise AssertionError("an engine was opened")

    outcomes = run_plan(make_plan([total(number(2))], run.store), no_engine, lambda *_: None)
    assert {outcome.state for outcome in outcomes.values()} == {"cached"}


def test_a_failure_stops_what_needs_it_and_nothing_else(run):
    outcomes = run(total(broken("bad row 7"), number(2)), total(number(3), factor=2.0))
    assert states(outcomes) == {
        "broken bad row 7": "failed",
        "number 2": "ran",
        "total": "skipped",
        "number 3": "ran",
        "total x 2.0": "ran",
    }
    failure = outcomes["broken bad row 7"]
    assert (failure.error, failure.exit_code) == ("bad row 7", 2)
    assert "Traceback" in failure.detail or "UsersMistake" in failure.detail
    assert run.store.find(total(broken("bad row 7"), number(2))) is None


def test_sharded_work_loads_once_for_all_steps_of_one_setup(run, tmp_path):
    log = tmp_path / "log"
    run(squares(3, log, workers=1), squares(5, log, workers=1))
    assert lines(log).count("start") == 1
    assert sorted(lines(log)) == sorted(
        ["start"] + [f"shard {i}" for i in (0, 1, 2)] + [f"shard {i}" for i in range(5)]
    )
    tables = [read_table(path) for path in run.store.find(squares(5)).shards()]
    assert [column_array(table, "x").tolist() for table in tables] == [[0.0], [1.0], [4.0], [9.0], [16.0]]


def test_after_a_failed_shard_only_missing_shards_are_filled(run, tmp_path):
    log = tmp_path / "log"
    outcomes = run(squares(4, log, workers=1, fail_at=2))
    assert outcomes["squares 4"].error == "shard 2 cannot be filled"
    first = [line for line in lines(log) if line.startswith("shard")]
    log.unlink()
    assert run(squares(4, log, workers=1))["squares 4"].state == "ran"
    second = [line for line in lines(log) if line.startswith("shard")]
    assert sorted(first + second) == [f"shard {i}" for i in range(4)]


def test_a_failed_sharded_step_does_not_hold_up_another(run, tmp_path):
    outcomes = run(squares(4, workers=1, fail_at=0), squares(6, workers=1))
    assert states(outcomes) == {"squares 4": "failed", "squares 6": "ran"}


def test_events_tell_every_shard_and_step(run):
    run(squares(2, workers=1))
    assert [event for event in run.events if event[0] != "started"] == [
        ("shard", "squares 2"),
        ("shard", "squares 2"),
        ("ran", "squares 2"),
    ]


def test_data_files_are_the_same_bytes_whichever_engine_made_them(tmp_path, ray_cluster):
    def made_by(engine):
        store = open_store(tmp_path / engine.__name__)
        run_plan(make_plan([squares(3)], store), lambda: engine(store, lambda *_: None), lambda *_: None)
        folder = store.root / squares(3).folder
        return {path.name: path.read_bytes() for path in [*folder.glob("*.arrow"), folder / "identity.json"]}

    assert made_by(InlineEngine) == made_by(RayEngine)


def test_more_workers_than_fit_the_cluster_still_finish(tmp_path):
    """Each asks for a whole core of two; a worker that is never placed must not hold its shards."""
    store = open_store(tmp_path / "store")
    target = dataclasses.replace(squares(6), resources=Resources(cpus=1, gpus=0, workers=5))
    outcomes = run_plan(make_plan([target], store), lambda: RayEngine(store, lambda *_: None), lambda *_: None)
    assert outcomes[target.key].state == "ran"


def test_steps_that_wait_for_others_hold_up_none_that_computes(tmp_path):
    """More than fit the two cores: two at a time, which end only when a step behind them all has run."""
    store, log, under_way, most = open_store(tmp_path / "store"), tmp_path / "log", 0, 0

    def emit(kind, step, _):
        nonlocal under_way, most
        if step.name == "waiting":
            under_way += {"started": 1, "ran": -1}[kind]
            most = max(most, under_way)

    plan = make_plan([*(waiting(name, log) for name in "abcde"), number(3, log=str(log))], store)
    outcomes = run_plan(plan, lambda: RayEngine(store, emit), emit)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    assert most == 2


def test_plain_steps_use_the_room_that_a_cluster_gains_while_they_run(tmp_path, monkeypatch):
    """Two cores, then four. The steps end when four have begun, so the room is used before any ends."""
    monkeypatch.setattr(ray_engine, "_LOOK_AROUND_SECONDS", 0.2)
    store, log, begun = open_store(tmp_path / "store"), tmp_path / "log", []
    log.touch()

    def emit(kind, step, _):
        begun.extend([step.label] if kind == "started" else [])
        if len(begun) == 2:
            monkeypatch.setattr(ray_engine.ray, "cluster_resources", lambda: {"CPU": 4.0})
        if len(begun) == 4:
            log.write_text("number\n")

    plan = make_plan([waiting(name, log) for name in "abcd"], store)
    outcomes = run_plan(plan, lambda: RayEngine(store, emit), emit)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}


def test_a_worker_that_dies_for_good_fails_its_own_step_alone(tmp_path):
    store = open_store(tmp_path / "store")
    deadly = squares(2, workers=1, kill_at={"shard": 1, "moment": "before", "once": str(tmp_path / "never" / "made")})
    outcomes = run_plan(
        make_plan([deadly, squares(5, workers=1)], store), lambda: RayEngine(store, lambda *_: None), lambda *_: None
    )
    assert outcomes[deadly.key].state == "failed"
    assert outcomes[squares(5).key].state == "ran"


def test_four_workers_that_are_lost_at_once_while_they_start_fail_no_step(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "_ShardActor", LostAtFirst)
    store, target = open_store(tmp_path / "store"), squares(8, tmp_path / "log", workers=4)
    outcomes = run_plan(make_plan([target], store), lambda: RayEngine(store, lambda *_: None), lambda *_: None)
    assert (outcomes[target.key].state, outcomes[target.key].error) == ("ran", "")
    assert len(lines(tmp_path / "log.asked")) > 4


@pytest.mark.parametrize("sharded", [True, False])
def test_a_frozen_worker_is_replaced_and_the_bytes_are_the_same(sharded, tmp_path):
    store, events, frozen = open_store(tmp_path / "store"), [], tmp_path / "frozen"
    kill_at = {"shard": 0 if not sharded else 2, "moment": "before", "once": str(frozen), "signal": "SIGSTOP"}
    target = squares(4, workers=1, kill_at=kill_at) if sharded else number(5, kill_at=kill_at)
    emit = lambda *event: events.append(event)  # noqa: E731
    outcomes = run_plan(make_plan([target], store), lambda: RayEngine(store, emit, stall_seconds=6.0), lambda *_: None)
    assert frozen.exists()
    assert outcomes[target.key].state == "ran"
    assert [step.label for kind, step, _ in events if kind == "stalled"] == [target.label]
    other = open_store(tmp_path / "other")
    run_plan(make_plan([target], other), lambda: InlineEngine(other, lambda *_: None), lambda *_: None)
    for path in (other.root / target.folder).glob("*.arrow"):
        assert (store.root / target.folder / path.name).read_bytes() == path.read_bytes()
    assert not list(store.root.glob("scratch/*/*"))


def test_a_step_whose_workers_always_freeze_fails_alone_and_says_so(tmp_path):
    store = open_store(tmp_path / "store")
    never = {"shard": 1, "moment": "before", "once": str(tmp_path / "never" / "made"), "signal": "SIGSTOP"}
    target = squares(2, workers=1, kill_at=never)
    outcomes = run_plan(
        make_plan([target, number(3)], store),
        lambda: RayEngine(store, lambda *_: None, stall_seconds=3.0),
        lambda *_: None,
    )
    assert outcomes[number(3).key].state == "ran"
    assert (outcomes[target.key].state, outcomes[target.key].exit_code) == ("failed", 1)
    assert "gave no sign of life for 3 s, 3 times in turn" in outcomes[target.key].error
