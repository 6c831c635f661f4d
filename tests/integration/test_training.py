"""Workers of Ray Train: one that dies, refuses or has no memory, a team that does not form, and a disk that is full."""

from functools import partial

import pytest
import ray
from ray.util import placement_group_table

from orchestration.ray_backend import process_group
from orchestration.ray_backend.early_stopping import Stopping
from orchestration.ray_backend.train import WorkerError, run_workers
from orchestration.ray_backend.tune import WorkerSlots, search
from tests.orchestration.ray_backend.test_tune import Packs, numbers
from tests.orchestration.trainings import HERE

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
]


def starts(scratch, rank=0):
    return (scratch / f"starts {rank}").read_text().splitlines()


def test_when_a_worker_dies_all_go_on_from_the_checkpoint(tmp_path):
    last = run_workers(f"{HERE}:count", {"to": 4, "dies": 3}, tmp_path, 2, 1.0, 0.0)
    assert (last / "at").read_text() == "4"
    assert starts(tmp_path, 0) == starts(tmp_path, 1)
    first, second = starts(tmp_path)
    assert (first, second) in [("None", "checkpoint-000002"), ("None", "checkpoint-000003")]


def test_a_mistake_of_one_ends_those_that_wait_for_it_and_is_not_repeated(tmp_path):
    with pytest.raises(WorkerError, match=r"^there is no such thing: expected another$") as told:
        run_workers(f"{HERE}:refuse", {}, tmp_path, 2, 1.0, 0.0)
    assert told.value.exit_code == 2
    assert starts(tmp_path, 0) == starts(tmp_path, 1) == ["start"]


def test_a_full_disk_is_told_once_and_the_checkpoint_before_is_gone_on_from(tmp_path):
    sizes = [1, 1 << 20, 1]
    with pytest.raises(WorkerError, match=r"cannot be written \(File too large\).* checkpoint is kept: make room"):
        run_workers(f"{HERE}:count", {"to": 3, "sizes": sizes, "most": 1 << 19}, tmp_path, 1, 1.0, 0.0)
    assert starts(tmp_path) == ["None"]
    assert [path.name for path in tmp_path.glob("*checkpoint-*")] == ["checkpoint-000001"]
    assert (run_workers(f"{HERE}:count", {"to": 3, "sizes": sizes}, tmp_path, 0, 1.0, 0.0) / "at").read_text() == "3"
    assert starts(tmp_path) == ["None", "checkpoint-000001"]


def test_want_of_memory_is_told_once_with_what_takes_less(tmp_path):
    with pytest.raises(
        WorkerError,
        match=r"out of memory \(OutOfMemoryError: CUDA out of memory. Tried .* GiB\)\. Give it fewer rows a step",
    ) as told:
        run_workers(f"{HERE}:exhaust", {}, tmp_path, 2, 1.0, 0.0)
    assert told.value.exit_code == 1
    assert starts(tmp_path, 0) == starts(tmp_path, 1) == ["start"]


def test_a_team_that_does_not_form_is_told_and_leaves_its_cores(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(process_group, "ProcessGroup", partial(process_group.ProcessGroup, init_method="by post"))
        with pytest.raises(WorkerError, match=r"start as one team \(ValueError: .*\(by post\).*\)\. Look whether"):
            run_workers(f"{HERE}:count", {"to": 1}, tmp_path, 2, 1.0, 0.0)
    assert {group["state"] for group in placement_group_table().values()} == {"REMOVED"}
    assert ray.available_resources()["CPU"] == 2


def test_workers_that_reserve_no_gpu_see_none(tmp_path):
    last = run_workers(f"{HERE}:look_for_gpus", {}, tmp_path / "training", 1, 1.0, 0.0)
    assert (last / "seen").read_text() == ""
    places, stopping = WorkerSlots(1, 1.0, 0.0), Stopping("none", 1, 1)
    setup = {"folder": str(tmp_path)}
    search(f"{HERE}:note_gpus", setup, Packs(numbers(1)), places, stopping, None, tmp_path / "search")
    assert (tmp_path / "seen").read_text() == ""
