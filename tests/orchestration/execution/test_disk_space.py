"""The warning before the disk is full."""

from orchestration.execution import disk_space
from orchestration.execution.disk_space import DiskRoom


def test_a_disk_with_room_is_not_spoken_of(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_space, "LOW_BYTES", 0)
    said = []
    DiskRoom(tmp_path, said.append, "").look()
    assert said == []


def test_a_disk_that_runs_full_is_spoken_of_once(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_space, "LOW_BYTES", 1 << 60)
    monkeypatch.setattr(disk_space, "_PAUSE_SECONDS", 0.0)
    said = []
    watch = DiskRoom(tmp_path, said.append, "remove something")
    for _ in range(3):
        watch.look()
    assert len(said) == 1
    assert f"free on the disk of {tmp_path}" in said[0]
    assert said[0].endswith("; remove something")
