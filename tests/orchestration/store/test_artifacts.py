"""Artifacts appear whole, once, and damage is loud."""

import json
import os
import threading

import numpy as np
import pytest

from orchestration.errors import DamagedArtifact, StoreError
from orchestration.store import files
from orchestration.store.arrow import table_of
from orchestration.store.artifacts import Artifact, existing_store, open_store
from orchestration.store.writer import Writer
from tests.orchestration.steps import number


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def fill(store, step, value=1.0, commit=True):
    writer = store.writer(step)
    writer.begin()
    writer.write_shard(0, table_of([0, 1], {"x": np.full(2, value)}))
    writer.write("extra.json", b"{}")
    if commit:
        writer.commit({"seconds": 0})
    return writer.folder


def test_an_artifact_without_its_marker_does_not_exist(store):
    fill(store, number(2), commit=False)
    assert store.find(number(2)) is None
    assert store.artifacts() == []


def test_a_committed_artifact_lists_every_file_with_size_and_checksum(store):
    folder = fill(store, number(2))
    manifest = store.find(number(2)).manifest
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {"COMMITTED", "manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": (folder / name).stat().st_size, "xxh3": files.checksum(folder / name)}
    assert json.loads((folder / "identity.json").read_text()) == number(2).payload


def test_a_second_writer_changes_nothing_and_is_no_error(store):
    folder = fill(store, number(2), value=1.0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    fill(store, number(2), value=9.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_writers_at_the_same_time_leave_one_whole_artifact(store):
    errors = []

    def one(value):
        try:
            fill(store, number(2), value)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(float(i),)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert errors == []
    artifact = store.find(number(2))
    assert list(artifact.damages(every_byte=True)) == []
    assert not list(artifact.folder.glob(f"{files.TEMPORARY}*"))


def test_a_slow_writer_cannot_change_what_another_committed(store):
    """It staged before the commit and publishes after it: the rename of older designs would replace the file."""
    slow = store.writer(number(2))
    slow.begin()
    staged = files.stage(slow.folder, "part-00000.arrow", lambda path: path.write_bytes(b"other bytes"))
    folder = fill(store, number(2))
    before = (folder / "part-00000.arrow").read_bytes()
    os.link(folder / "extra.json", staged) if not staged.exists() else None  # the commit swept it away: stage again
    assert files.publish(staged, folder / "part-00000.arrow") is False
    assert (folder / "part-00000.arrow").read_bytes() == before


def test_leftovers_of_killed_writers_are_never_listed_and_go_with_the_commit(store):
    folder = fill(store, number(2), commit=False)
    (folder / f"{files.TEMPORARY}abc-part-00001.arrow").write_bytes(b"half a sh")
    fill(store, number(2))
    assert not list(folder.glob(f"{files.TEMPORARY}*"))
    assert "part-00001.arrow" not in store.find(number(2)).manifest["files"]


def test_a_data_file_without_its_sidecar_is_adopted_whole(store):
    folder = fill(store, number(2), value=1.0, commit=False)
    (folder / "part-00000.json").unlink()
    before = (folder / "part-00000.arrow").read_bytes()
    fill(store, number(2), value=9.0)
    assert (folder / "part-00000.arrow").read_bytes() == before
    assert list(store.find(number(2)).damages(every_byte=True)) == []


def all_files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "COMMITTED",
        "manifest.json",
        "identity.json",
        "provenance.json",
        "part-00000.arrow",
        "part-00000.json",
        "extra.json",
    ],
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_any_damage_to_any_file_is_found_by_verify_and_named(store, name, damage):
    path = fill(store, number(2)) / name
    hurt(path, damage)
    if name == "COMMITTED" and damage == "remove":
        assert store.find(number(2)) is None  # the rule: removing the marker removes the artifact
        return
    found = list(Artifact(path.parent).damages(every_byte=True))
    assert len(found) == 1
    named = "manifest.json" if name == "COMMITTED" else name
    assert found[0].file.endswith(named)


def test_a_file_that_was_removed_since_it_was_verified_is_missing(store):
    fill(store, number(2))
    artifact = store.find(number(2))
    path = artifact.path("extra.json")
    path.unlink()
    with pytest.raises(DamagedArtifact, match=r"extra.json: found no file, expected 2 bytes"):
        artifact.path("extra.json")
    path.write_bytes(b"[]")
    with pytest.raises(DamagedArtifact, match="checksum"):
        Artifact(artifact.folder).path("extra.json")


def hurt(path, damage):
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()


def test_a_flipped_bit_is_refused_by_the_step_that_reads_it(store):
    folder = fill(store, number(2))
    hurt(folder / "part-00000.arrow", "flip")
    with pytest.raises(DamagedArtifact, match=r"part-00000\.arrow: found checksum .*Remove the folder"):
        Artifact(folder).shards()


def test_a_cut_file_is_refused_already_when_the_artifact_is_looked_up(store):
    folder = fill(store, number(2))
    hurt(folder / "part-00000.arrow", "cut")
    with pytest.raises(DamagedArtifact, match="bytes, expected"):
        store.find(number(2))


def test_an_artifact_under_another_key_is_named_itself_not_all_of_its_kind(store):
    fill(store, number(2)).rename(store.root / number(3).folder)
    with pytest.raises(DamagedArtifact) as error:
        store.find(number(3))
    assert f"Remove the folder {store.root / number(3).folder} and run again" in str(error.value)
    assert f"found key {number(2).key}, expected one that begins with {number(3).key[:16]}" in str(error.value)


def test_two_keys_of_the_same_first_digits_are_an_error_not_a_mixture(store):
    folder = fill(store, number(2), commit=False)
    other = Writer(folder, {**number(3).payload}, {})
    with pytest.raises(StoreError, match="another step's identity"):
        other.begin()


def test_a_store_of_another_format_is_refused_with_both_numbers(tmp_path):
    (tmp_path / "VOCABSEM_STORE.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match=r"format 99; .* reads format 1"):
        open_store(tmp_path)


def test_a_store_below_a_file_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written .*--store"):
        open_store(tmp_path / "file" / "store")


def test_a_relative_store_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    assert open_store(Path("here")).root == tmp_path / "here"


def test_shards_with_a_gap_or_of_another_number_are_not_committed(store):
    writer = store.writer(number(2))
    writer.begin()
    for index in (0, 2):
        writer.write_shard(index, table_of([index], {"x": np.ones(1)}))
    for count in (None, 2, 3):
        with pytest.raises(StoreError, match="remove the folder and run again"):
            writer.commit({}, count)
    writer.write_shard(1, table_of([1], {"x": np.ones(1)}))
    writer.commit({}, 3)
    assert store.find(number(2)).rows == 3


def test_damage_between_writing_and_commit_is_not_signed(store):
    folder = fill(store, number(2), commit=False)
    hurt(folder / "part-00000.arrow", "flip")
    store.writer(number(2)).commit({})
    assert [damage.file for damage in Artifact(folder).damages(every_byte=True)] == [str(folder / "part-00000.arrow")]


def test_the_rows_of_an_adopted_file_are_its_own(store):
    folder = fill(store, number(2), commit=False)
    (folder / "part-00000.json").unlink()
    store.writer(number(2)).write_shard(0, table_of([5], {"x": np.ones(1)}))
    assert json.loads((folder / "part-00000.json").read_text())["rows"] == 2


def test_reading_a_store_that_is_not_there_makes_none(tmp_path):
    with pytest.raises(StoreError, match="no store; run a workflow first, or name its folder with --store"):
        existing_store(tmp_path / "misspelt")
    assert not (tmp_path / "misspelt").exists()


def test_what_shards_were_measured_by_is_added_up_where_it_is_seconds_and_else_the_largest(store):
    writer = store.writer(number(2))
    writer.begin()
    for shard, (seconds, peak) in enumerate([(1.5, 30), (2.0, 10)]):
        measured = {"work_seconds": seconds, "peak_rss": peak, **({"peak_cuda": 7} if shard else {})}
        writer.write_shard(shard, table_of([shard], {"x": np.ones(1)}), measured=measured)
    assert writer.measured_in_all() == {"peak_rss": 30, "work_seconds": 3.5}  # not what a shard does not say


def test_shards_of_an_older_version_were_not_measured(store):
    writer = store.writer(number(2))
    writer.begin()
    writer.write_shard(0, table_of([0], {"x": np.ones(1)}))
    sidecar = json.loads((writer.folder / "part-00000.json").read_text())
    (writer.folder / "part-00000.json").write_text(json.dumps({k: v for k, v in sidecar.items() if k != "measured"}))
    assert writer.measured_in_all() == {}
