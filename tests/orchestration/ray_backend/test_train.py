"""Checkpoints of a training in this process: whole at every moment, and kept where the disk is full."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from orchestration.ray_backend import train
from orchestration.ray_backend.train import WorkerContext, WorkerError, run_workers
from tests.orchestration.trainings import HERE, Refused


def keep(scratch: Path, text: str) -> None:
    WorkerContext(0, 1, None, None, scratch).keep(lambda folder: (folder / "at").write_text(text))


def kept(scratch: Path) -> list[str]:
    """What lies in the scratch folder."""
    return sorted(path.name for path in scratch.iterdir())


def count(scratch: Path, **config: object) -> Path:
    return run_workers(f"{HERE}:count", config, scratch, 0, 1.0, 0.0)


def test_the_last_checkpoint_is_gone_on_from_and_those_before_it_go(tmp_path):
    last = count(tmp_path, to=3)
    assert (last.name, (last / "at").read_text()) == ("checkpoint-000003", "3")
    assert (count(tmp_path, to=4) / "at").read_text() == "4"
    assert (tmp_path / "starts 0").read_text() == "None\ncheckpoint-000003\n"
    assert kept(tmp_path) == ["checkpoint-000003", "checkpoint-000004", "starts 0"]


class Killed(BaseException):
    """The process is no more."""


@pytest.mark.parametrize(
    ("module", "call", "whole"), [(os, "replace", "2"), (shutil, "rmtree", "3"), (Path, "mkdir", "2")]
)
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path, monkeypatch, module, call, whole):
    """Every call that changes a folder is once the last one that is made; nothing is cleaned up after a kill."""
    keep(tmp_path, "1")
    keep(tmp_path, "2")
    (tmp_path / "checkpoint-000001" / "more").write_text("of it")
    done = getattr(module, call)

    def last_act(*arguments, **options):
        if call != "rmtree":
            raise Killed
        if str(arguments[0]).endswith("-000001"):  # it may come to remove a part
            (arguments[0] / "at").unlink()
            raise Killed
        done(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, call, last_act)
        if call != "rmtree":
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            keep(tmp_path, "3")
    last = max(tmp_path.glob("checkpoint-*"))
    assert (last / "at").read_text() == whole
    count(tmp_path, to=4)
    assert kept(tmp_path) == ["checkpoint-000003", "checkpoint-000004", "starts 0"]


def test_two_that_write_at_once_mix_nothing(tmp_path):
    """A worker of a driver that was taken over wakes, and writes beside the new one's."""

    def slowly(folder: Path) -> None:
        (folder / "at").write_text("old")
        keep(tmp_path, "new")
        (folder / "curve").write_text("old")

    keep(tmp_path, "1")
    WorkerContext(0, 1, None, None, tmp_path).keep(slowly)
    found = [{part.name: part.read_text() for part in folder.iterdir()} for folder in sorted(tmp_path.iterdir())]
    assert found == [{"at": "new"}, {"at": "old", "curve": "old"}]


def test_a_number_that_another_takes_is_not_written_over(tmp_path, monkeypatch):
    keep(tmp_path, "1")
    seen = iter([None, None, tmp_path / "checkpoint-000001"])
    monkeypatch.setattr(train, "_last_checkpoint", lambda scratch: next(seen))
    keep(tmp_path, "2")
    assert [(path.name, (path / "at").read_text()) for path in sorted(tmp_path.iterdir())] == [
        ("checkpoint-000001", "1"),
        ("checkpoint-000002", "2"),
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_disk_that_is_full_is_told_and_the_checkpoint_before_stays(tmp_path, monkeypatch, number):
    count(tmp_path, to=1)

    def full(path, data):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(WorkerError, match=r"weights: cannot be written .* is kept: make room") as told:
            count(tmp_path, to=2)
    assert told.value.exit_code == 2
    assert kept(tmp_path) == ["checkpoint-000001", "starts 0"]
    assert (count(tmp_path, to=2) / "at").read_text() == "2"


def test_other_errors_of_the_system_are_raised_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        WorkerContext(0, 1, None, None, tmp_path).keep(lambda folder: (folder / "none" / "at").write_text("1"))
    with pytest.raises(Refused):
        run_workers(f"{HERE}:refuse", {}, tmp_path, 0, 1.0, 0.0)


def test_only_the_first_worker_keeps(tmp_path):
    WorkerContext(1, 2, None, None, tmp_path).keep(lambda folder: pytest.fail("it is not the first"))
    assert kept(tmp_path) == []
