"""What a node says when it is asked, and how it all becomes one report."""

import dataclasses
import os
import platform
import shutil

import pytest
import torch

from orchestration.errors import ClusterError
from orchestration.execution.work import version_of
from orchestration.graph import Resources
from orchestration.ray_backend import preflight
from orchestration.ray_backend.preflight import (
    Needs,
    Node,
    _here,
    _unpacked_twice,
    _without_room,
    _without_shared_folder,
    _without_space,
    code_digest,
    differences,
    facts_of,
    look,
    report,
)
from tests.orchestration.steps import number, squares
from tests.s3_server import refusal

SOURCE, PACKAGES = ("orchestration",), ("torch", "no such package")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store" / "asked").mkdir(parents=True)
    (tmp_path / "store" / "asked" / "driver").write_text("asked")
    return tmp_path / "store"


def said(store, files=None, folder=None, gpu=False):
    return look(
        str(store), str(folder or store / "asked"), "node-1", files or {}, "/driver", SOURCE, PACKAGES, None, gpu
    )


def needs(store, **changes):
    return Needs(**{"store": store, "steps": [], "source": SOURCE, "packages": PACKAGES, **changes})


def with_workers(label, workers):
    return dataclasses.replace(number(1), label=label, workers=workers)


def test_a_node_that_has_all_says_so_and_leaves_its_file(store):
    answer = said(store)
    assert (answer["missing"], answer["wrote"]) == ([], True)
    assert (store / "asked" / "node-1").read_text() == "asked"
    assert answer["facts"] == facts_of(SOURCE, PACKAGES)
    assert answer["facts"]["torch"] == torch.__version__
    assert "no such package" not in answer["facts"]
    assert answer["facts"]["Python"] == platform.python_version()


def test_a_node_without_the_store_makes_none(tmp_path):
    (told,) = said(tmp_path / "elsewhere")["missing"]
    assert told.startswith(f"no folder {tmp_path / 'elsewhere'} for the store. Mount")
    assert not (tmp_path / "elsewhere").exists()


def test_another_folder_of_the_same_name_is_not_the_store(tmp_path):
    (tmp_path / "store").mkdir()
    (told,) = said(tmp_path / "store")["missing"]
    assert "is another folder than the driver's" in told


def test_a_store_that_cannot_be_written_is_told(store):
    (store / "asked" / "node-1").mkdir()  # root may write everywhere, but not a file over a folder
    answer = said(store)
    assert "cannot be written" in answer["missing"][0]
    assert not answer["wrote"]


@pytest.fixture
def asked(machine, tmp_path):
    """The mirror of a bucket where the driver has put its object, and the folder it is called by."""
    mirror = machine().mirror
    folder = mirror.root / "scratch" / "preflight" / "asked"
    (tmp_path / "driver").write_text("asked")
    mirror.bucket.put(mirror.key(folder / "driver"), tmp_path / "driver")
    return mirror, folder


def said_of(mirror, folder):
    return look(str(mirror.root), str(folder), "node-1", {}, "/driver", SOURCE, PACKAGES, mirror)


def test_a_node_reads_and_writes_the_bucket_and_keeps_nothing(asked):
    mirror, folder = asked
    answer = said_of(mirror, folder)
    assert (answer["missing"], answer["shared"]) == ([], False)
    assert mirror.bucket.get(mirror.key(folder / "node-1")) == b"asked"
    assert not folder.exists()


def test_a_node_that_sees_the_drivers_folder_of_copies_says_so(asked):
    mirror, folder = asked
    folder.mkdir(parents=True)
    (folder / "driver").write_text("asked")
    assert said_of(mirror, folder)["shared"]
    assert (folder / "driver").exists()


@pytest.mark.parametrize("methods", [("GET",), ("PUT",)])
def test_a_node_that_may_not_use_the_bucket_says_so(asked, server, methods):
    server.before = lambda request: refusal(403, "InvalidAccessKeyId") if request.method in methods else None
    (told,) = said_of(*asked)["missing"]
    assert f"{server.address} refuses the credentials (InvalidAccessKeyId)" in told
    assert "Set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and the others before `ray start`" in told


def test_a_bucket_of_another_server_and_a_folder_that_cannot_be_made_are_told(asked):
    mirror, folder = asked
    (told,) = said_of(mirror, folder.with_name("never asked"))["missing"]
    assert "is of another server than the driver's" in told
    shutil.rmtree(folder.parent)
    folder.parent.write_text("a file, where a folder should be made")
    (told,) = said_of(mirror, folder)["missing"]
    assert "where copies from the bucket shall lie. Start the driver with $VOCABSEM_CACHE" in told


def test_trainers_on_several_nodes_need_a_folder_that_all_see(asked):
    mirror, _ = asked
    nodes = [Node(name, name, {}) for name in ("a", "b")]
    asks = needs(mirror.root, steps=[with_workers("sweep calibration", Resources())], mirror=mirror)
    answers = {node: {"shared": node.node_id == "a"} for node in nodes}
    (told,) = _without_shared_folder(asks, answers)
    assert told.startswith("sweep calibration has workers that hand each other files through")
    assert _without_shared_folder(needs(mirror.root, mirror=mirror), answers) == []
    assert _without_shared_folder(asks, {nodes[0]: {"shared": True}}) == []


def test_files_are_compared_by_size(store, tmp_path):
    (tmp_path / "rows.jsonl").write_text("12345")
    files = {str(tmp_path / "rows.jsonl"): 6, str(tmp_path / "gone"): 1, "/driver/inputs/a.csv": 2}
    assert said(store, files)["missing"] == [
        f"{tmp_path / 'rows.jsonl'} has 5 bytes, the driver's 6. Copy the same file to every node.",
        f"no file {tmp_path / 'gone'}. Put it where every node sees it.",
        "no file /driver/inputs/a.csv. Start Ray with the same --temp-dir on every node.",
    ]


def test_gpus_that_a_nodes_torch_cannot_use_are_told_where_some_are_wanted(store, monkeypatch):
    monkeypatch.setattr(preflight.sys, "executable", shutil.which("false"))  # as a torch without CUDA ends
    (told,) = said(store, gpu=True)["missing"]
    assert told.startswith(f"it gives GPUs, which its torch {version_of('torch')} cannot use. Install a build")
    assert said(store)["missing"] == []
    monkeypatch.setattr(preflight.sys, "executable", shutil.which("true"))
    assert said(store, gpu=True)["missing"] == []


def test_whether_torch_finds_a_gpu_is_what_torch_itself_says(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of the asking process, and not of the node
    found = preflight._without_use_of_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert found == torch.cuda.is_available()


def test_only_gpus_that_ray_found_beside_cores_are_looked_at():
    def has_gpu(**resources):
        return Node("n" * 40, "10.0.0.1", resources).has_gpu

    assert has_gpu(**{"CPU": 8, "GPU": 1, "accelerator_type:H100": 1})
    assert not has_gpu(CPU=8, GPU=2)  # in name only
    assert not has_gpu(**{"CPU": 0, "GPU": 1, "accelerator_type:H100": 1})
    assert not has_gpu(**{"CPU": 8, "accelerator_type:H100": 1})  # with --num-gpus=0


def test_versions_that_differ_are_told_with_both():
    here = {"Python": "3.11.7", "torch": "2.13.0", "the code": "abc"}
    there = {"Python": "3.11.7", "the code": "abd"}
    first, second = differences(here, there)
    assert first.startswith("torch is not installed, the driver's is 2.13.0.")
    assert second.startswith("the code is abd, the driver's is abc.")
    assert differences(here, here) == []


def test_builds_of_one_version_for_cpu_and_gpu_do_not_differ():
    """The compose file's GPU worker has another build of torch than the head."""
    cpu, gpu, other = {"torch": "2.13.0+cpu"}, {"torch": "2.13.0"}, {"torch": "2.12.1+cu128"}
    assert differences(cpu, gpu) == differences(gpu, cpu) == []
    (told,) = differences(cpu, other)
    assert told.startswith("torch is 2.12.1+cu128, the driver's is 2.13.0+cpu.")


def test_the_codes_digest_changes_with_a_line(tmp_path, monkeypatch):
    (tmp_path / "somecode").mkdir()
    (tmp_path / "somecode" / "__init__.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digest(["somecode"])
    assert code_digest(["somecode"]) == before
    (tmp_path / "somecode" / "__init__.py").write_text("a = 2\n")
    assert code_digest(["somecode"]) != before


def test_nodes_that_unpack_a_job_in_one_place_are_told():
    nodes = [Node(letter * 40, "10.0.0.1", {}) for letter in "abc"]
    package = "/tmp/ray/session/_ray_pkg_12"
    places = [["host", package], ["host", package], ["other", package]]
    answers = {node: {"at": at} for node, at in zip(nodes, places, strict=True)}
    (told,) = _unpacked_twice(answers)
    assert told.startswith("node 10.0.0.1 (bbbbbb) and node 10.0.0.1 (aaaaaa) are on one machine")
    assert _unpacked_twice({node: {"at": ["host", "/home/me"]} for node in nodes}) == []


def test_too_little_space_is_told_in_numbers(store):
    steps = [dataclasses.replace(number(value), bytes=5 * 10**8) for value in range(6)]
    assert _without_space(needs(store, steps=steps), 3 * 10**9) == []
    (told,) = _without_space(needs(store, steps=steps), 10**9)
    assert "1.0 GB free, and about 3.0 GB will be written" in told


def test_reservations_that_no_node_grants_are_told_once_a_kind(store):
    nodes = [{"CPU": 2, "memory": 8e9}]
    steps = [number(1), number(2), squares(2), squares(3)]
    asked = needs(store, steps=[with_workers("sweep s", Resources(1, 1)), *steps])
    assert _without_room(needs(store, steps=steps), {}, nodes) == []
    told = _without_room(asked, {"number": {"cpus": 64}, "squares": {"gpus": 1}}, nodes)
    assert len(told) == 3
    assert told[0].startswith("number 2 asks for 64 cores")
    assert told[1].startswith("squares 3 asks for 0 cores, 1 GPUs")
    assert told[2].startswith("sweep s: a worker asks for 1 GPUs")


def test_a_worker_group_that_never_fits_as_a_whole_is_told(store):
    nodes = [{"CPU": 0}, {"CPU": 4}, {"CPU": 4}]
    three, two = (needs(store, steps=[with_workers("pretrain m", Resources(3, 0, of))]) for of in (3, 2))
    (told,) = _without_room(three, {}, nodes)
    assert told.startswith(
        "pretrain m: 3 workers of 3 cores and 0 GPUs are needed at once, and the cluster has room for 2"
    )
    assert _without_room(two, {}, nodes) == []


def test_the_report_counts_and_lists():
    assert report(["a"]) == "the cluster is not ready, nothing was run; 1 thing is missing:\n  a"
    assert report(["a", "b"]).splitlines()[0].endswith("2 things are missing:")
    assert os.linesep not in report(["a"]).splitlines()[1]


def test_a_jobs_folder_that_is_gone_already_is_told_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "job").mkdir()
    monkeypatch.chdir(tmp_path / "job")
    (tmp_path / "job").rmdir()
    with pytest.raises(ClusterError, match=r"is gone: another node on this machine .* another --temp-dir"):
        _here()
