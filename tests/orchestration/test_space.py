"""The warning before the disk is full."""

from orchestration import space
from orchestration.space import Space


def test_a_disk_with_room_is_not_spoken_of(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "LOW_BYTES", 0)
    said = []
    Space(tmp_path, said.append).look()
    assert said == []


def test_a_disk_that_runs_full_is_spoken_of_once(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "LOW_BYTES", 1 << 60)
    monkeypatch.setattr(space, "_PAUSE_SECONDS", 0.0)
    said = []
    watch = Space(tmp_path, said.append)
    for _ in range(3):
        watch.look()
    assert len(said) == 1
    assert f"free on the disk of {tmp_path}" in said[0]
    assert "vocabsem gc --dry-run" in said[0]
