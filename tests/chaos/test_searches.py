"""Searches whose workers die: what was tried is kept, what was not is tried again in smaller packs."""

import json
import os
import signal
from pathlib import Path

import pytest

from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.tune import WorkerError, WorkerSlots, search

pytestmark = pytest.mark.usefixtures("ray_cluster")
NEVER = Stopping("none", 1, 1)


class FixedTrials:
    """Packs from a list."""

    def __init__(self, *sizes):
        keys = iter(range(sum(sizes)))
        self.packs = [[{"key": str(next(keys))} for _ in range(size)] for size in sizes]
        self.total = sum(sizes)

    def take(self):
        return self.packs.pop(0) if self.packs else None

    def tell(self, records):
        known = {record["key"] for record in records}
        self.packs = [left for pack in self.packs if (left := [one for one in pack if one["key"] not in known])]

    @property
    def exhausted(self):
        return not self.packs


def try_pack(setup, pack, watch):
    """Records; a pack that holds a key of `fatal`, or more than `most`, ends its worker."""
    with open(setup["log"], "a") as log:
        log.write(" ".join(one["key"] for one in pack) + "\n")
    if len(pack) > setup["most"] or any(one["key"] in setup["fatal"] for one in pack):
        os.kill(os.getpid(), signal.SIGKILL)
    if any(one["key"] == setup.get("mistake") for one in pack):
        raise Mistake("the label 'x' has no rows")
    return [{**one, "ended": "finished", "validation": 1.0, "curve": []} for one in pack]


class Mistake(Exception):
    exit_code = 2


def run(tmp_path: Path, proposals, **setup):
    given = {"log": str(tmp_path / "log"), "most": 99, "fatal": [], **setup}
    found = search("tests.chaos.test_searches:try_pack", given, proposals, WorkerSlots(2, 1, 0), NEVER, None, tmp_path)
    return {record["key"]: record for record in found}


def test_a_pack_too_large_for_a_worker_is_tried_in_halves(tmp_path):
    found = run(tmp_path, FixedTrials(4, 1), most=2)
    assert sorted(found) == list("01234")
    assert {record["ended"] for record in found.values()} == {"finished"}
    tried = (tmp_path / "log").read_text().splitlines()
    assert sorted(tried) == ["0 1", "0 1 2 3", "2 3", "4"]


def test_a_configuration_that_kills_its_worker_is_lost_alone_and_tried_again_by_the_next_attempt(tmp_path):
    found = run(tmp_path, FixedTrials(2, 2), fatal=["1"])
    assert {key for key, record in found.items() if record["ended"] == "lost"} == {"1"}
    assert "died" in found["1"]["error"]
    assert sorted(found) == list("0123")
    assert (tmp_path / "log").read_text().splitlines().count("1") == 2
    again = run(tmp_path, FixedTrials(2, 2))
    assert {record["ended"] for record in again.values()} == {"finished"}
    assert (tmp_path / "log").read_text().splitlines()[-1] == "1"


def test_what_a_worker_raises_ends_the_search_in_its_own_words_and_keeps_the_rest(tmp_path):
    with pytest.raises(WorkerError, match=r"^the label 'x' has no rows$") as caught:
        run(tmp_path, FixedTrials(1, 1, 1), mistake="2")
    assert caught.value.exit_code == 2
    kept = [json.loads(path.read_text())[0]["key"] for path in (tmp_path / "packs").glob("*.json")]
    assert sorted(kept) == ["0", "1"]
    assert sorted(run(tmp_path, FixedTrials(1, 1, 1))) == list("012")
