"""A search in this process: what is finished is kept, what fails is not lost, and nothing is tried twice."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestration.ray_backend import trial_queue
from orchestration.ray_backend import tune as module
from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.trial_queue import Pack, Record, TrialQueue, seconds_spent
from orchestration.ray_backend.tune import Watch, WorkerError, WorkerSlots, search
from orchestration.ray_backend.tune_searcher import PackSearcher
from orchestration.store.files import replace_json
from orchestration.store.scratch import told
from tests.orchestration.steps import UsersMistake

HERE = WorkerSlots(0, 1, 0)
NONE = Stopping("none", 1, 9)


def numbers(*wanted: int) -> Pack:
    return [{"key": f"k{number}", "number": number} for number in wanted]


class Packs:
    """Packs given beforehand, without what was told of."""

    def __init__(self, *packs: Pack) -> None:
        self.total = sum(map(len, packs))
        self._packs = list(packs)
        self.told: list[str] = []

    def take(self) -> Pack | None:
        while self._packs:
            if left := [one for one in self._packs.pop(0) if one["key"] not in self.told]:
                return left
        return None

    def tell(self, records: Any) -> None:
        self.told += [record["key"] for record in records]

    @property
    def exhausted(self) -> bool:
        return not any(one["key"] not in self.told for pack in self._packs for one in pack)


def record(one: Mapping[str, Any], ended: str = "finished", curve: list[float] | None = None) -> Record:
    return {**one, "ended": ended, "validation": one["number"] / 10, "loss": None, "curve": curve or [], "error": ""}


def scored(setup: Mapping[str, Any], pack: Pack, watch: Watch) -> list[Record]:
    """Scores numbers; tells a file what it was given. Raises at a number, until a file is there."""
    with open(setup["log"], "a") as log:
        log.writelines(f"{one['number']}\n" for one in pack)
    if any(one["number"] == setup.get("fail_at") for one in pack) and not Path(setup["mended"]).exists():
        raise UsersMistake("no such number")
    return [record(one) for one in pack]


def trained(setup: Mapping[str, Any], pack: Pack, watch: Watch) -> list[Record]:
    """Nine epochs, the loss being the number; a clock advances with each, where there is one."""
    curves: dict[str, list[float]] = {one["key"]: [] for one in pack}
    going, ended = {one["key"]: one for one in pack}, {}
    for epoch in range(1, 10):
        for key in going:
            curves[key].append(float(going[key]["number"]))
        if "clock" in setup:
            setup["clock"].now += 10
        for key in watch(epoch, {key: curves[key][-1] for key in going}):
            ended[key] = "stopped"
            del going[key]
    return [record(one, ended.get(one["key"], "finished"), curves[one["key"]]) for one in pack]


class Clock:
    """Stands in for `time`."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now


def run(folder: Path, proposals: Any, function: str = "scored", **given: Any) -> list[Record]:
    setup = {"log": str(folder / "log"), "mended": str(folder / "mended"), **given.pop("setup", {})}
    arguments = {"stopping": NONE, "seconds": None, **given}
    return search(f"{__name__}:{function}", setup, proposals, HERE, scratch=folder / "scratch", **arguments)


def tried(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "log").read_text().split()] if (folder / "log").is_file() else []


def kept(folder: Path) -> list[list[Record]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "scratch" / "packs").glob("*.json"))]


def test_every_pack_is_tried_once_and_what_came_of_it_is_a_file(tmp_path: Path) -> None:
    proposals = Packs(numbers(1, 2), numbers(3))
    found = run(tmp_path, proposals)
    assert found == [record(one) for one in numbers(1, 2, 3)]
    assert tried(tmp_path) == [1, 2, 3]
    assert sorted(kept(tmp_path), key=len) == [found[2:], found[:2]]
    assert proposals.told == ["k1", "k2", "k3"]


def test_the_progress_says_how_many_are_done_and_the_best(tmp_path: Path) -> None:
    run(tmp_path, Packs(numbers(1, 7), numbers(3)))
    progress = told(tmp_path / "scratch")
    assert progress is not None
    assert (progress.done, progress.of, progress.unit) == (3, 3, "trials")
    assert progress.note == "best 0.700"


def test_an_attempt_that_broke_off_is_gone_on_with_and_repeats_nothing(tmp_path: Path) -> None:
    packs = [numbers(1, 2), numbers(3), numbers(4, 5), numbers(6)]
    with pytest.raises(UsersMistake, match="no such number"):
        run(tmp_path, Packs(*packs), setup={"fail_at": 4})
    assert tried(tmp_path) == [1, 2, 3, 4, 5]
    (tmp_path / "mended").touch()
    proposals = Packs(*packs)
    found = run(tmp_path, proposals, setup={"fail_at": 4})
    assert tried(tmp_path) == [1, 2, 3, 4, 5, 4, 5, 6]
    assert sorted(one["number"] for one in found) == [1, 2, 3, 4, 5, 6]
    assert sorted(proposals.told) == [f"k{number}" for number in (1, 2, 3, 4, 5, 6)]


def test_the_seconds_of_all_attempts_add_up(tmp_path: Path) -> None:
    assert seconds_spent(tmp_path) == 0
    replace_json(tmp_path / "spent.json", 1000.0)
    board = TrialQueue(Packs(numbers(1)), tmp_path, [], None)
    board.tell([record(one) for one in numbers(1)])
    assert 1000 <= seconds_spent(tmp_path) < 1100


def test_an_earlier_attempts_packs_may_have_been_of_other_sizes(tmp_path: Path) -> None:
    run(tmp_path, Packs(numbers(1), numbers(2, 3)))
    found = run(tmp_path, Packs(numbers(1, 2, 3, 4)))
    assert tried(tmp_path) == [1, 2, 3, 4]
    assert sorted(one["number"] for one in found) == [1, 2, 3, 4]


def test_a_finished_search_tries_nothing_again(tmp_path: Path) -> None:
    first = run(tmp_path, Packs(numbers(1, 2)))
    assert run(tmp_path, Packs(numbers(1, 2))) == first
    assert tried(tmp_path) == [1, 2]


def test_half_a_file_of_a_killed_attempt_is_not_read(tmp_path: Path) -> None:
    run(tmp_path, Packs(numbers(1)))
    (tmp_path / "scratch" / "packs" / ".tmp-0-1.json").write_text('[{"key": "k')
    assert len(run(tmp_path, Packs(numbers(1), numbers(2)))) == 2


def test_what_died_is_not_begun_again_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for part in (module, trial_queue):
        monkeypatch.setattr(part, "time", clock)
    found = TrialQueue(Packs(numbers(1, 2)), tmp_path, [], deadline=clock.now + 5)
    found.died(found.take())
    clock.now += 10
    assert found.take() is None


def test_a_mistake_of_an_earlier_attempt_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "mistake.json").write_text("{}")
    run(tmp_path, Packs(numbers(1)))
    assert not (tmp_path / "scratch" / "mistake.json").exists()


def test_after_the_time_limit_nothing_is_begun_and_what_runs_ends_after_its_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    for part in (module, trial_queue):
        monkeypatch.setattr(part, "time", clock)
    packs = Packs(numbers(1, 2), numbers(3), numbers(4), numbers(5))
    found = run(tmp_path, packs, "trained", seconds=115.0, setup={"clock": clock})  # 9 epochs of 10 s, and 3 more
    ends = {one["number"]: (one["ended"], len(one["curve"])) for one in found}
    assert ends == {1: ("finished", 9), 2: ("finished", 9), 3: ("stopped", 3)}


def test_a_time_limit_that_is_over_tries_nothing_and_one_that_is_not_tries_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tmp_path, Packs(numbers(1)), seconds=-1.0) == []
    assert tried(tmp_path) == []
    assert len(run(tmp_path, Packs(numbers(1), numbers(2)), seconds=1e6)) == 2


def test_without_stopping_everything_gets_all_its_epochs(tmp_path: Path) -> None:
    found = run(tmp_path, Packs(*(numbers(number) for number in range(6))), "trained")
    assert {(one["ended"], len(one["curve"])) for one in found} == {("finished", 9)}


def test_the_poor_are_ended_whichever_pack_they_are_in(tmp_path: Path) -> None:
    packs = Packs(numbers(1, 5, 3), numbers(7, 0), numbers(8))
    found = run(tmp_path, packs, "trained", stopping=Stopping("asha", 2, 9))
    ends = {one["number"]: (one["ended"], len(one["curve"])) for one in found}
    whole, ended = ("finished", 9), ("stopped", 2)
    assert ends == {1: whole, 5: ended, 3: ended, 7: ended, 0: whole, 8: ended}


def test_curves_of_an_earlier_attempt_count_for_stopping(tmp_path: Path) -> None:
    stopping = Stopping("asha", 2, 9)
    run(tmp_path, Packs(numbers(1, 2, 3)), "trained", stopping=stopping)
    found = run(tmp_path, Packs(numbers(1, 2, 3), numbers(9)), "trained", stopping=stopping)
    assert {one["number"]: one["ended"] for one in found}[9] == "stopped"
    (alone,) = run(tmp_path / "elsewhere", Packs(numbers(9)), "trained", stopping=stopping)
    assert alone["ended"] == "finished"


def board(folder: Path, *packs: Pack) -> tuple[TrialQueue, Packs]:
    proposals = Packs(*packs)
    return TrialQueue(proposals, folder / "scratch", [], None), proposals


def test_a_pack_whose_worker_died_is_tried_again_in_halves_before_what_is_new(tmp_path: Path) -> None:
    found, _ = board(tmp_path, numbers(1, 2, 3, 4, 5), numbers(6))
    pack = found.take()
    assert pack == numbers(1, 2, 3, 4, 5)
    found.died(pack)
    halves = [found.take(), found.take()]
    assert sorted(halves, key=lambda half: half[0]["number"]) == [numbers(1, 2), numbers(3, 4, 5)]
    assert found.take() == numbers(6)
    assert found.take() is None


def test_halves_that_die_too_are_halved_until_each_is_alone(tmp_path: Path) -> None:
    found, _ = board(tmp_path, numbers(*range(9)))
    alone = []
    while (pack := found.take()) is not None:
        if len(pack) == 1:
            alone += pack
        else:
            found.died(pack)
    assert sorted(one["number"] for one in alone) == list(range(9))


def test_one_whose_worker_died_twice_is_lost_and_no_file_keeps_it(tmp_path: Path) -> None:
    found, proposals = board(tmp_path, numbers(1, 2))
    found.died(found.take())
    first, second = found.take(), found.take()
    found.died(first)
    assert found.take() == first  # once more
    found.died(second)
    assert found.records == {}  # deaths are counted for each
    assert found.take() == second
    found.died(first)
    assert found.take() is None
    lost = found.records[first[0]["key"]]
    assert (lost["ended"], lost["validation"], lost["error"]) == ("lost", None, "its worker died 2 times")
    assert lost["number"] == first[0]["number"]
    assert proposals.told == [first[0]["key"]]
    assert kept(tmp_path) == []
    found.tell([record(second[0])])
    assert sorted(one["ended"] for one in found.records.values()) == ["finished", "lost"]


def test_one_that_was_given_up_is_tried_again_by_the_next_attempt(tmp_path: Path) -> None:
    found, _ = board(tmp_path, numbers(1))
    for _ in range(2):
        found.died(found.take())
    assert found.take() is None
    records = run(tmp_path, Packs(numbers(1), numbers(2)))
    assert [one["ended"] for one in records] == ["finished", "finished"]
    assert tried(tmp_path) == [1, 2]


def test_what_was_lost_beside_others_is_tried_again_and_the_others_are_not(tmp_path: Path) -> None:
    run(tmp_path, Packs(numbers(1, 2, 3)))
    (path,) = (tmp_path / "scratch" / "packs").glob("*.json")
    ends = ["finished", "lost", "failed"]
    path.write_text(json.dumps([record(one, ended) for one, ended in zip(numbers(1, 2, 3), ends, strict=True)]))
    proposals = Packs(numbers(1, 2, 3))
    records = run(tmp_path, proposals)
    assert {one["number"]: one["ended"] for one in records} == {1: "finished", 2: "finished", 3: "failed"}
    assert tried(tmp_path) == [1, 2, 3, 2]
    assert proposals.told == ["k1", "k3", "k2"]


def test_a_workers_mistake_keeps_its_words_and_exit_code_between_processes() -> None:
    found = pickle.loads(pickle.dumps(WorkerError("no such number", 2)))
    assert (type(found), str(found), found.exit_code) == (WorkerError, "no such number", 2)


def test_a_board_is_exhausted_once_nothing_waits(tmp_path: Path) -> None:
    found, _ = board(tmp_path, numbers(1, 2))
    assert not found.exhausted
    pack = found.take()
    assert found.exhausted
    found.died(pack)
    assert not found.exhausted
    found.take(), found.take()
    assert found.exhausted


def test_a_board_whose_time_is_over_is_exhausted(tmp_path: Path) -> None:
    assert TrialQueue(Packs(numbers(1)), tmp_path, [], deadline=1.0).exhausted
    assert TrialQueue(Packs(numbers(1)), tmp_path, [], deadline=1.0).take() is None


def test_tunes_side_gives_out_packs_and_hears_of_results_deaths_and_mistakes(tmp_path: Path) -> None:
    found, _ = board(tmp_path, numbers(1, 2), numbers(3))
    results: dict[int, list[Record]] = {3: [record(*numbers(3))]}
    mistakes: list[str] = []
    searcher = PackSearcher(found, lambda pack: results.get(pack[0]["number"]), lambda: bool(mistakes))
    assert searcher.suggest("a") == {"pack": numbers(1, 2)}
    assert searcher.suggest("b") == {"pack": numbers(3)}
    assert searcher.suggest("c") is None  # what is under way may die and come back
    searcher.on_trial_complete("a", error=True)
    searcher.on_trial_complete("b")
    assert list(found.records) == ["k3"]
    assert searcher.suggest("c") in ({"pack": numbers(1)}, {"pack": numbers(2)})
    mistakes.append("of the worker")
    assert searcher.suggest("d") == PackSearcher.FINISHED
    searcher.on_trial_complete("c", error=True)
    assert list(found.records) == ["k3"]


def test_tunes_banner_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = pytest.importorskip("ray.tune")

    class Tuner:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def fit(self) -> None:
            print("Number of trials", 2**63 - 1)

    monkeypatch.setattr(tune, "Tuner", Tuner)
    monkeypatch.setattr(tune, "with_parameters", lambda trial, **_: trial)
    search("unused:unused", {}, Packs(numbers(1)), WorkerSlots(1, 1, 0), NONE, None, tmp_path)
    assert capsys.readouterr().out == ""


def test_tunes_side_is_finished_when_the_last_pack_is(tmp_path: Path) -> None:
    found, _ = board(tmp_path, numbers(1))
    searcher = PackSearcher(found, lambda pack: [record(*pack)], lambda: False)
    searcher.suggest("a")
    assert searcher.suggest("b") is None
    searcher.on_trial_complete("a")
    assert searcher.suggest("b") == PackSearcher.FINISHED
