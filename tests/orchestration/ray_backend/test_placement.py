"""Reservations by kind of step, and processes that keep to them."""

import dataclasses
import multiprocessing
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from orchestration.errors import ClusterError, OutOfMemory
from orchestration.graph import Resources
from orchestration.ray_backend.placement import (
    check_fits,
    explained,
    memory_limit,
    ray_options,
    reserved,
    use_reserved_cores,
)
from orchestration.ray_backend.train import WorkerError
from tests.orchestration.steps import number, squares

MB = 10**6


def test_what_the_user_reserves_replaces_the_steps_own_and_nothing_else():
    step = dataclasses.replace(number(1), resources=Resources(cpus=2, gpus=0.5, workers=3))
    assert reserved(step, {"number": {"memory": 5 * MB}}) == Resources(2, 0.5, 3, 5 * MB)
    assert reserved(step, {"number": {"cpus": 4.0}}) == Resources(4.0, 0.5, 3)
    assert reserved(step, {"squares": {"cpus": 4.0}}) == step.resources


@given(st.floats(0, 64), st.floats(0, 8), st.integers(1, 99), st.integers(1, 10**12))
def test_no_reservation_enters_a_key(cpus, gpus, workers, memory):
    asked = Resources(cpus, gpus, workers, memory)
    for step in (number(3), squares(3)):
        assert dataclasses.replace(step, resources=asked).key == step.key


def test_options_of_a_task_name_memory_only_where_it_is_limited():
    assert ray_options(Resources(None), []) == {"num_cpus": 0, "num_gpus": 0}
    assert ray_options(Resources(1, 0.25, None, 7), []) == {"num_cpus": 1, "num_gpus": 0.25, "memory": 7}


def test_a_task_that_leaves_it_open_takes_a_gpu_where_a_node_has_one():
    nodes = [{"CPU": 8}, {"CPU": 2, "GPU": 2}]
    assert ray_options(Resources(1, None), nodes)["num_gpus"] == 1
    assert ray_options(Resources(1, None), nodes[:1])["num_gpus"] == 0
    assert ray_options(Resources(1), nodes)["num_gpus"] == 0


def test_a_step_that_fits_no_single_node_is_refused_with_the_numbers():
    nodes = [{"CPU": 8, "memory": 4e9}, {"CPU": 2, "GPU": 1, "memory": 64e9}]
    check_fits(number(1), Resources(8, 0, None, 3 * 10**9), nodes)
    with pytest.raises(
        ClusterError, match=r"number 1 asks for 8 cores, 0 GPUs and 5.0 GB .*execution.resources.number"
    ):
        check_fits(number(1), Resources(8, 0, None, 5 * 10**9), nodes)  # each alone is there, on different nodes


def test_libraries_have_as_many_threads_as_the_task_has_cores_in_later_threads_too(monkeypatch):
    for cores in ("2", "1"):
        monkeypatch.setenv("OMP_NUM_THREADS", cores)
        use_reserved_cores()
        with ThreadPoolExecutor(1) as later:
            assert {torch.get_num_threads(), later.submit(torch.get_num_threads).result()} == {int(cores)}
        assert {library["num_threads"] for library in threadpool_info()} == {int(cores)}
    monkeypatch.delenv("OMP_NUM_THREADS")
    use_reserved_cores()
    assert torch.get_num_threads() == 1


def refused_beyond_the_limit() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_limit(50 * MB):
        bytearray(20 * MB)
        with pytest.raises(MemoryError):
            bytearray(80 * MB)
    bytearray(80 * MB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_memory_beyond_the_limit_is_refused_and_the_limit_ends():
    """In a fresh process: memory that this one freed and kept would serve the request without asking the system."""
    process = multiprocessing.get_context("spawn").Process(target=refused_beyond_the_limit)
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_want_of_memory_names_the_step_and_the_setting(error):
    told = explained(error, number(3), Resources(1, 0, None, 2 * 10**9), died=False)
    assert isinstance(told, OutOfMemory)
    assert str(told) == (
        "number 3 needs more memory than its limit of 2 GB (execution.resources.number.memory_gb); raise the limit"
    )
    free = explained(error, number(3), Resources(1), died=False)
    assert str(free).startswith(f"number 3 ran out of memory ({type(error).__name__}")
    assert str(free).endswith(
        "; execution.resources.number.memory_gb: set it, so that fewer steps run at the same time"
    )
    assert "\n" not in str(free)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    ],
)
def test_want_of_a_gpus_memory_names_what_takes_less(error):
    encode = dataclasses.replace(squares(3), less_memory="lower the batch")
    told = explained(error, encode, Resources(4, 1.0), died=False)
    assert isinstance(told, OutOfMemory)
    assert str(told).startswith(f"squares 3 ran out of memory ({type(error).__name__}: CUDA ")
    assert str(told).endswith("; lower the batch")
    assert str(explained(error, number(3), Resources(1, 1.0), died=False)).endswith("; take a GPU with more memory")


def test_what_explains_itself_stays_as_it_is():
    error = WorkerError("a worker ran out of memory (MemoryError: can't allocate memory). Give it fewer rows.", 1)
    assert explained(error, number(3), Resources(1, 0, None, 10), died=False) is error


def test_a_task_takes_no_gpu_of_a_node_that_has_no_cores_for_it():
    head_with_gpus = [{"CPU": 0, "GPU": 4}, {"CPU": 8}]
    assert ray_options(Resources(1, None), head_with_gpus)["num_gpus"] == 0
    check_fits(number(1), Resources(8, None), head_with_gpus)
    with pytest.raises(ClusterError, match="asks for 8 cores, 1 GPUs and"):
        check_fits(number(1), Resources(8, None), [{"CPU": 2, "GPU": 1}, {"CPU": 8}])  # else it would wait for ever


def test_a_process_that_ray_ended_for_memory_names_the_setting():
    error = type("OutOfMemoryError", (Exception,), {})("the node ran low")
    told = str(explained(error, number(3), Resources(1), died=True))
    assert "its node ran out of memory" in told
    assert "execution.resources.number.memory_gb: set it" in told


def test_other_errors_stay_as_they_are():
    error = ValueError("row 7")
    assert explained(error, number(3), Resources(1, 0, None, 10), died=False) is error
