"""A run as one archive: the same bytes elsewhere; a cut, changed or foreign archive leaves nothing behind."""

import io
import json
import random
import tarfile

import pytest

from orchestration.errors import DamagedArtifact, StoreError
from orchestration.runs.archive import export_run, import_run
from orchestration.runs.gc import damages
from orchestration.runs.lookup import find_run
from orchestration.runs.plan import make_plan
from orchestration.runs.record import runs
from orchestration.store.artifacts import Store, open_store
from orchestration.store.files import TEMPORARY
from tests.orchestration.runs.test_gc import flip, run
from tests.orchestration.steps import number, squares, total

TARGET = (number(2), squares(3))


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def other(tmp_path):
    return open_store(tmp_path / "other")


@pytest.fixture
def archive(store, tmp_path):
    record = run(store, total(*TARGET))
    record.write("results.json", [{"score": 1}])
    record.write("mlflow.json", {"uri": "here alone"})
    export_run(store, record, tmp_path / "run.tar")
    return tmp_path / "run.tar"


def content(store: Store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.root)): path.read_bytes()
        for path in store.root.rglob("*")
        if path.is_file() and path.name not in ("VOCABSEM_STORE.json", "mlflow.json")
    }


def rewritten(archive, change):
    """The archive with its members changed: name -> bytes, or None to leave one out."""
    with tarfile.open(archive) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    with tarfile.open(archive, "w") as tar:
        for name, data in change(members).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive


def test_a_run_comes_back_with_all_it_reaches(store, other, archive):
    moved = import_run(other, archive)
    assert content(other) == content(store)
    assert (moved.artifacts, moved.known, moved.missing) == (3, 0, ())
    assert {entry.state for entry in make_plan([total(*TARGET)], other)} == {"cached"}
    assert find_run(moved.run_id, other).read("results.json") == [{"score": 1}]
    assert find_run(moved.run_id, other).read("mlflow.json") is None, "what another MLflow was told"


def test_export_import_and_verify_say_how_far_they_are(store, other, archive, tmp_path):
    told = {"export": [], "import": [], "verify": []}
    say = {name: (lambda *told, into=into: into.append(told)) for name, into in told.items()}
    export_run(store, runs(store)[0], tmp_path / "again.tar", say["export"])
    import_run(other, tmp_path / "again.tar", say["import"])
    damages(store, say["verify"])
    assert told["export"] == told["verify"] == [(0, 3), (1, 3), (2, 3)], "artifacts"
    files = len(content(store))
    assert told["import"] == [(done, files) for done in range(files)]


def test_what_is_there_already_stays_and_the_rest_is_brought(store, other, archive):
    run(other, number(2))
    before = {path.name: path.stat().st_ino for path in (other.root / number(2).folder).iterdir()}
    moved = import_run(other, archive)
    assert (moved.artifacts, moved.known) == (2, 1)
    assert {path.name: path.stat().st_ino for path in (other.root / number(2).folder).iterdir()} == before
    again = import_run(other, archive)
    assert (again.artifacts, again.known, again.bytes) == (0, 3, 0)


def test_what_a_run_had_begun_is_replaced(other, archive):
    writer = other.writer(squares(3))
    writer.begin()
    import_run(other, archive)
    assert list(other.find(squares(3)).damages(every_byte=True)) == []


def test_the_same_run_gives_the_same_archive(store, archive, tmp_path):
    (record,) = [find_run("latest", store)]
    export_run(store, record, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


def test_an_unfinished_run_says_what_is_not_in_it(store, tmp_path):
    from orchestration.runs.record import open_run

    run(store, number(2))
    record = open_run(store, [total(number(2))], "workflow: test\n")
    moved = export_run(store, record, tmp_path / "run.tar")
    assert (moved.artifacts, moved.missing) == (1, ("total",))


def test_damage_is_not_exported(store, tmp_path):
    record = run(store, number(2))
    flip(store.root / number(2).folder / "part-00000.arrow")
    with pytest.raises(DamagedArtifact):
        export_run(store, record, tmp_path / "run.tar")
    assert list(tmp_path.glob("*.tar")) == []


def test_a_file_that_exists_is_not_written_over(store, archive):
    with pytest.raises(StoreError, match="exists; name another file"):
        export_run(store, find_run("latest", store), archive)


def must_refuse(other, archive, match):
    before = content(other)
    with pytest.raises(StoreError, match=match) as caught:
        import_run(other, archive)
    assert str(archive) in str(caught.value)
    assert caught.value.exit_code == 2
    assert content(other) == before
    assert not list(other.root.rglob(f"{TEMPORARY}*"))


def test_an_archive_cut_anywhere_is_an_error_and_leaves_nothing(other, archive):
    whole = archive.read_bytes()
    end = len(whole.rstrip(b"\0"))
    draw = random.Random(0)
    for size in [0, 1, 511, 512, 1024, end // 512 * 512, *(draw.randrange(end) for _ in range(40))]:
        archive.write_bytes(whole[:size])
        must_refuse(other, archive, "cut short|not what|cannot be read|no whole artifact")


def test_a_bit_that_flipped_anywhere_in_a_file_of_it_is_found(other, archive):
    whole = archive.read_bytes()
    with tarfile.open(archive) as tar:
        inside = [(member.offset_data, member.size) for member in tar if member.name != "vocabsem-export.json"]
    draw = random.Random(0)
    for start, size in inside:
        changed = bytearray(whole)
        changed[start + draw.randrange(size)] ^= 1 << draw.randrange(8)
        archive.write_bytes(bytes(changed))
        must_refuse(other, archive, "is not as it was exported")


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "number/0123456789abcdef/../../../outside", "a/b"])
def test_a_name_that_leads_out_of_the_store_is_refused(name, other, archive):
    def change(members):
        index = json.loads(members["vocabsem-export.json"])
        index["files"][name] = {"bytes": 1, "xxh3": "0"}
        return {**members, "vocabsem-export.json": json.dumps(index).encode(), name: b"x"}

    must_refuse(other, rewritten(archive, change), "nothing outside the store")
    assert not (other.root.parent / "outside").exists()


def test_a_member_the_index_does_not_name_is_refused(other, archive):
    must_refuse(other, rewritten(archive, lambda members: {**members, "../outside": b"x"}), "does not name so")


def test_a_link_is_refused(other, archive):
    with tarfile.open(archive, "a") as tar:
        member = tarfile.TarInfo(f"{number(2).folder}/part-00000.arrow")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    must_refuse(other, archive, "does not name so")


def test_a_member_that_is_missing_is_named(other, archive):
    gone = f"{number(2).folder}/manifest.json"
    must_refuse(other, rewritten(archive, lambda m: {k: v for k, v in m.items() if k != gone}), f"cut short: {gone}")


def test_an_artifact_under_another_steps_name_is_refused(other, archive):
    """Its own bytes are right; its key is not that of the folder it would get."""
    false = "number/0123456789abcdef"

    def change(members):
        index = json.loads(members["vocabsem-export.json"])
        moved = {name.replace(number(2).folder, false): data for name, data in members.items()}
        index["files"] = {name.replace(number(2).folder, false): entry for name, entry in index["files"].items()}
        return {**moved, "vocabsem-export.json": json.dumps(index).encode()}

    must_refuse(other, rewritten(archive, change), "no whole artifact|another step's identity")


@pytest.mark.parametrize("text", [b"no archive at all", b"", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(text, other, tmp_path):
    (tmp_path / "x.tar").write_bytes(text)
    must_refuse(other, tmp_path / "x.tar", "no archive|not what")


def test_a_foreign_tar_is_refused(other, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(__file__, "code.py")
    must_refuse(other, tmp_path / "x.tar", "not the archive of a run")


def test_a_file_that_is_not_there_is_named(other, tmp_path):
    must_refuse(other, tmp_path / "none.tar", "no such file")


@pytest.mark.parametrize(("field", "value"), [("format", 2), ("store", 9)])
def test_an_archive_of_another_version_is_refused(field, value, other, archive):
    def change(members):
        index = {**json.loads(members["vocabsem-export.json"]), field: value}
        return {**members, "vocabsem-export.json": json.dumps(index).encode()}

    must_refuse(other, rewritten(archive, change), "this version of vocabsem reads")


def test_a_run_that_would_not_fit_is_refused_before_it_begins(other, archive, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    must_refuse(other, archive, "has 0 free")
