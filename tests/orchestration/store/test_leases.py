"""One driver at a time makes an artifact; who is gone or silent loses its lease, and cannot commit any more."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from orchestration.errors import LeaseLost, StoreError
from orchestration.execution import scheduler
from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.plan import make_plan
from orchestration.store import leases
from orchestration.store.artifacts import open_store
from orchestration.store.files import TEMPORARY
from orchestration.store.leases import Holder, Lease, Leases, live_leases
from tests.orchestration.steps import broken, number, total

STEP = "number/0123456789abcdef"


@pytest.fixture
def quick(monkeypatch):
    """Beats and expiry in tenths of a second."""
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 1.0)
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.05)


@pytest.fixture
def opened(tmp_path):
    """Leases of several drivers of one store; all closed in the end."""
    made = []

    def open_one():
        made.append(Leases(tmp_path))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def taken_after(mine, seconds):
    """Ask for the lease until it is given; how many seconds that took."""
    started = time.monotonic()
    while isinstance(found := mine.take(STEP), Holder):
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return found


def test_a_lease_is_had_by_one_and_named_to_the_others(opened):
    first, second = opened(), opened()
    lease = first.take(STEP)
    assert isinstance(lease, Lease)
    assert lease.kept
    holder = second.take(STEP)
    assert (holder.host, holder.pid) == (socket.gethostname(), os.getpid())
    assert str(holder).startswith(f"process {os.getpid()} on {socket.gethostname()}, since 20")
    first.give_back(lease)
    assert not lease.kept
    assert isinstance(second.take(STEP), Lease)


def test_a_file_system_without_hard_links_is_told(opened, tmp_path, monkeypatch):
    """A full disk is another cause, with another way out."""

    def link(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    told = r"its file system has no hard links .* Name a store on another one with --store"
    with pytest.raises(StoreError, match=told):
        opened().take(STEP)
    with pytest.raises(StoreError, match=told):
        open_store(tmp_path / "store")
    assert not list((tmp_path / "store").iterdir())


def test_closing_gives_everything_back_and_leaves_no_file(opened, tmp_path):
    one = opened()
    for name in ("a/0", "a/1", "b/0"):
        one.take(name)
    one.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_silent_holder_is_taken_over_with_a_higher_token(opened, quick, monkeypatch):
    silent, other = opened(), opened()
    lease = silent.take(STEP)
    silent._closing.set()  # its thread ends: what a stopped process looks like from outside
    later = taken_after(other, 10)
    assert (int(later.file.name), int(lease.file.name)) == (2, 1)
    assert later.kept
    assert not lease.kept
    silent.give_back(lease)
    assert later.kept, "who lost a lease must not take it from its new holder"


def test_a_holder_that_beats_is_never_taken_over(opened, quick):
    first, second = opened(), opened()
    lease = first.take(STEP)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert isinstance(second.take(STEP), Holder)
        time.sleep(0.02)
    assert lease.kept


def test_clocks_are_never_compared(opened, quick, tmp_path):
    """A holder whose clock is years off is as good as any while its bytes change."""
    first, second = opened(), opened()
    lease = first.take(STEP)
    for path in (lease.file, tmp_path):
        os.utime(path, (0, 0))
    assert isinstance(second.take(STEP), Holder)


def _hold_and_wait(store, told):
    Leases(store).take(STEP)
    told.send("held")
    time.sleep(600)


@pytest.fixture
def killed_holder(tmp_path):
    told, tell = multiprocessing.get_context("spawn").Pipe(False)
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_wait, args=(tmp_path, tell))
    process.start()
    assert told.recv() == "held"
    yield process
    process.kill()
    process.join()


def test_a_holder_that_was_killed_on_this_machine_is_taken_over_at_once(opened, killed_holder):
    mine = opened()
    assert isinstance(mine.take(STEP), Holder)
    killed_holder.kill()
    killed_holder.join()
    assert isinstance(mine.take(STEP), Lease)


def test_a_process_number_that_is_used_again_is_not_the_holder(opened):
    first, second = opened(), opened()
    lease = first.take(STEP)
    document = json.loads(lease.file.read_text())
    lease.file.write_text(json.dumps({**document, "born": "1"}))
    assert isinstance(second.take(STEP), Lease)


def test_of_many_that_ask_at_once_one_gets_it(opened):
    drivers = [opened() for _ in range(16)]
    found, barrier = [], threading.Barrier(16)

    def ask(mine):
        barrier.wait()
        found.append(mine.take(STEP))

    threads = [threading.Thread(target=ask, args=(mine,)) for mine in drivers]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sum(isinstance(one, Lease) for one in found) == 1
    assert len(found) == 16


def test_of_many_that_take_over_at_once_one_gets_it(opened, quick):
    silent = opened()
    silent.take(STEP)
    silent._closing.set()
    drivers, found = [opened() for _ in range(8)], []
    threads = [threading.Thread(target=lambda m=mine: _ask_for(m, found, 3.0)) for mine in drivers]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 1
    assert found[0].kept


def _ask_for(mine, found, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if isinstance(lease := mine.take(STEP), Lease):
            found.append(lease)
            return
        time.sleep(0.01)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"beat": "0"}', "\xff"])
def test_a_lease_that_cannot_be_read_is_an_error_that_names_it(text, opened, tmp_path):
    place = tmp_path / "leases" / STEP / "1"
    place.parent.mkdir(parents=True)
    place.write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=r"leases/number/0123456789abcdef/1: not a lease .* Remove the file"):
        opened().take(STEP)


def test_a_lease_that_was_lost_does_not_commit(opened, quick, tmp_path):
    store, silent, other = open_store(tmp_path), opened(), opened()
    late = store.writer(number(2), silent.take(number(2).folder))
    late.begin()
    late.write("x.json", b"{}")
    silent._closing.set()
    while isinstance(lease := other.take(number(2).folder), Holder):
        time.sleep(0.02)
    with pytest.raises(LeaseLost):
        late.commit({}, 0)
    assert store.find(number(2)) is None
    store.writer(number(2), lease).commit({}, 0)
    late.commit({}, 0)  # committed by its new holder: nothing is lost, and no error is due
    assert list(store.find(number(2)).damages(every_byte=True)) == []
    assert not list(store.root.rglob(f"{TEMPORARY}*"))


def test_live_leases_are_those_of_processes_that_live(opened, killed_holder, tmp_path):
    opened().take("number/1")
    assert set(live_leases(tmp_path)) == {"number/1", STEP}
    killed_holder.kill()
    killed_holder.join()
    assert set(live_leases(tmp_path)) == {"number/1"}


@pytest.mark.parametrize("beats", [True, False])
def test_a_lease_of_another_host_lives_while_it_beats(beats, opened, quick, tmp_path, monkeypatch):
    one = opened()
    one._holder = Holder(**{**vars(one._holder), "place": "elsewhere"})
    one.take(STEP)
    if not beats:
        one._closing.set()
        one._thread.join()
    assert set(live_leases(tmp_path)) == ({STEP} if beats else set())


def run(store, *targets):
    events = []
    emit = lambda kind, step, told: events.append((kind, step.label, told))  # noqa: E731
    plan = make_plan(targets, store)
    outcomes = run_plan(plan, lambda: InlineEngine(store, emit), emit)
    return {entry.step.label: outcomes[entry.step.key] for entry in plan}, events


def test_a_driver_waits_for_another_says_for_whom_and_uses_what_it_made(quick, tmp_path, opened):
    store, other = open_store(tmp_path), opened()
    lease = other.take(number(3).folder)

    def finish():
        time.sleep(0.5)
        writer = store.writer(number(3), lease)
        from orchestration.execution.work import run_whole, work_of

        run_whole(number(3).run, work_of(number(3), store, lease))
        assert writer.committed
        other.give_back(lease)

    thread = threading.Thread(target=finish)
    thread.start()
    outcomes, events = run(store, total(number(3)), total(number(4)))
    thread.join()
    assert {label: outcome.state for label, outcome in outcomes.items()} == {
        "number 3": "cached",
        "number 4": "ran",
        "total": "ran",
    }
    told = [(kind, details) for kind, label, details in events if label == "number 3"]
    assert [kind for kind, _ in told] == ["waiting", "shared"]
    assert all(details["holder"].startswith(f"process {os.getpid()} on ") for _, details in told)
    ended = [label for kind, label, _ in events if kind in ("ran", "shared")]
    assert ended.index("number 4") < ended.index("number 3"), "other work goes on meanwhile"


def test_a_driver_goes_on_itself_when_the_other_gives_up(quick, tmp_path, opened):
    store, other = open_store(tmp_path), opened()
    lease = other.take(number(3).folder)
    threading.Timer(0.3, lambda: other.give_back(lease)).start()
    outcomes, _ = run(store, number(3))
    assert outcomes["number 3"].state == "ran"


def test_a_step_that_fails_gives_its_lease_back(tmp_path, opened):
    store = open_store(tmp_path)
    outcomes, _ = run(store, broken("bad row 7"))
    assert outcomes["broken bad row 7"].state == "failed"
    assert isinstance(opened().take(broken("bad row 7").folder), Lease)


def test_a_store_whose_leases_cannot_be_read_is_one_clear_error(tmp_path):
    store = open_store(tmp_path)
    place = store.root / "leases" / number(2).folder / "1"
    place.parent.mkdir(parents=True)
    place.write_text("?")
    with pytest.raises(StoreError, match="not a lease"):
        run(store, number(2))


def test_a_suspended_driver_loses_the_work_and_ends_well(tmp_path):
    """Stopped with its step in hand; another makes the step; awake again, it finds it made: no error, one commit."""
    store, log = open_store(tmp_path / "store"), tmp_path / "log"
    program = (
        "import sys; from pathlib import Path; from tests.orchestration import steps\n"
        "from orchestration.execution import scheduler\nfrom orchestration.store import leases\n"
        "from orchestration.store.artifacts import open_store; from orchestration.runs.plan import make_plan\n"
        "leases.BEAT_SECONDS, leases.EXPIRY_SECONDS, scheduler.POLL_SECONDS = 0.1, 1.0, 0.1\n"
        "store, quiet = open_store(Path(sys.argv[1])), lambda *_: None\n"
        "targets = [steps.squares(2, Path(sys.argv[2]), seconds=float(sys.argv[3]))]\n"
        "found = scheduler.run_plan(make_plan(targets, store), lambda: scheduler.InlineEngine(store, quiet), quiet)\n"
        "print(*(outcome.state for outcome in found.values()))\n"
    )

    def drive(seconds):
        command = [sys.executable, "-c", program, str(store.root), str(log), seconds]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."})

    first = drive("1.5")
    while not log.exists():
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)
    assert drive("0").communicate(timeout=60)[0] == "ran\n"
    (artifact,) = store.artifacts()
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in artifact.folder.iterdir()}
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=60)[0].split() in (["ran"], ["cached"])
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in artifact.folder.iterdir()} == before
    assert [path for path in (store.root / "leases").rglob("*") if path.is_file()] == []
