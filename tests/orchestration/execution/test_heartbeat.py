"""Signs of life, and what counts as silence."""

import time

import pytest

from orchestration.execution import heartbeat
from orchestration.execution.heartbeat import Watch, pulse, report_alive


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(heartbeat, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(heartbeat, "PULSE_SECONDS", 0.05)


def silent_after(watch, file, seconds):
    """Whether the worker counts as silent within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if watch.is_silent("worker", file):
            return True
        time.sleep(0.02)
    return False


def test_a_worker_that_has_not_begun_is_never_silent(tmp_path):
    assert not silent_after(Watch(0.1), tmp_path / "sign", 0.5)


def test_one_that_has_begun_and_says_nothing_more_is(tmp_path):
    report_alive(tmp_path / "deep" / "sign")
    assert silent_after(Watch(0.2), tmp_path / "deep" / "sign", 5)


def test_one_that_keeps_giving_signs_is_not(tmp_path):
    with pulse(tmp_path / "sign"):
        assert not silent_after(Watch(1.0), tmp_path / "sign", 2.5)
    tmp_path.mkdir(exist_ok=True)
    report_alive(tmp_path / "sign")
    assert silent_after(Watch(0.2), tmp_path / "sign", 5)


def test_signs_of_an_earlier_worker_do_not_count_against_the_next(tmp_path):
    report_alive(tmp_path / "sign")
    watch = Watch(0.1)
    watch.begin(tmp_path / "sign")
    assert not silent_after(watch, tmp_path / "sign", 0.5)


def test_a_sign_that_is_seen_while_it_is_written_is_a_sign(tmp_path):
    """A file is empty for a moment between being made, or made new, and being written."""
    (tmp_path / "sign").touch()
    watch = Watch(0.2)
    assert not watch.is_silent("worker", tmp_path / "sign")
    assert silent_after(watch, tmp_path / "sign", 5)


def test_signs_come_seldom_however_often_they_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_PAUSE_SECONDS", 60.0)
    report_alive(tmp_path / "sign")
    first = (tmp_path / "sign").read_bytes()
    for _ in range(1000):
        report_alive(tmp_path / "sign")
    assert (tmp_path / "sign").read_bytes() == first


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    """A worker that wakes after its step was committed must leave nothing behind."""
    report_alive(tmp_path / "signs" / "sign")
    (tmp_path / "signs" / "sign").unlink()
    (tmp_path / "signs").rmdir()
    report_alive(tmp_path / "signs" / "sign")
    assert not (tmp_path / "signs").exists()


def test_a_step_that_fails_leaves_no_sign(tmp_path):
    scratch = tmp_path / "scratch" / "fit" / "0123"

    def fail():
        with pulse(scratch / "signs" / "step"):
            assert (scratch / "signs" / "step").is_file()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert not scratch.exists()


def test_signs_of_workers_that_were_ended_go_with_the_engine_and_what_a_step_keeps_stays(tmp_path):
    watch, kept = Watch(1.0), tmp_path / "kept" / "checkpoint"
    kept.parent.mkdir()
    kept.write_text("weights")
    files = [tmp_path / place / "signs" / "0" for place in ("kept", "ended")]
    for file in files:
        watch.begin(file)
        report_alive(file)
    watch.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoint", "kept"]
