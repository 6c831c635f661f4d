"""What a step reserves of a node, and a process that keeps to it: no GPU it was not given, no memory beyond its limit.

Nothing here enters a key: a step is the same step wherever it runs.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from orchestration.errors import ClusterError, OutOfMemory, exit_code_of
from orchestration.graph import Resources, Step

Reserves = Mapping[str, Mapping[str, float]]  # kind of step -> `cpus`, `memory` (bytes) that replace the step's own
GB = 10**9
_NO_MEMORY = (  # in torch's errors
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",  # it found no room for itself
)


def reserved(step: Step, given: Reserves) -> Resources:
    """What a step reserves: its own resources, where the user gave none for its kind."""
    return replace(step.resources, **given.get(step.name, {}))  # type: ignore[arg-type]


def ray_options(asked: Resources, nodes: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Options of a Ray task on one of these nodes."""
    memory = {"memory": asked.memory} if asked.memory is not None else {}
    return {"num_cpus": asked.cpus or 0, "num_gpus": gpus_of(asked, nodes), **memory}


def gpus_of(asked: Resources, nodes: Sequence[Mapping[str, float]]) -> float:
    """GPUs that are reserved on one of these nodes: one, where that is left open and a node with cores has one."""
    if asked.gpus is not None:
        return asked.gpus
    return float(any(node.get("GPU", 0) >= 1 for node in with_cores(nodes)))


def with_cores(nodes: Sequence[Mapping[str, float]]) -> Sequence[Mapping[str, float]]:
    """Those that can run work: a cluster's head often has no cores. All of them, where none has any."""
    return [node for node in nodes if node.get("CPU", 1) >= 1] or nodes


def check_fits(step: Step, asked: Resources, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raises ClusterError where no node could ever run it: Ray would let it wait for ever."""
    wanted = {"CPU": asked.cpus or 0, "GPU": gpus_of(asked, nodes), "memory": asked.memory or 0}
    if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    largest = {name: max(node.get(name, 0) for node in nodes) for name in wanted}
    raise ClusterError(
        f"{step.label} asks for {_told(wanted)} of one node; the largest have {_told(largest)}. "
        f"Lower execution.resources.{step.name}."
    )


def _told(amounts: Mapping[str, float]) -> str:
    return f"{amounts['CPU']:g} cores, {amounts['GPU']:g} GPUs and {amounts['memory'] / GB:.1f} GB"


def hide_gpus() -> None:
    """Let this process see no GPU. Ray leaves all of a node's visible to a process that reserved none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def use_reserved_cores() -> None:
    """Let libraries use as many threads as Ray reserved cores for this task; those imported before have more."""
    from threadpoolctl import threadpool_limits

    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():  # Ray sets it for each task
        threadpool_limits(int(threads))
        if "torch" in sys.modules:  # its own count holds for threads that begin later, too
            sys.modules["torch"].set_num_threads(int(threads))


def limit_memory(memory: int | None) -> None:
    """Let this process take so many bytes beyond what it holds now; None: as many as there are.

    The limit is the kernel's own on private writable memory (RLIMIT_DATA), so that an allocation beyond it fails where
    it stands, and files that are mapped do not count.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard if memory is None else _held() + memory
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


@contextmanager
def memory_limit(memory: int | None) -> Iterator[None]:
    """`limit_memory`, for as long as this lasts."""
    limit_memory(memory)
    try:
        yield
    finally:
        limit_memory(None)


def _held() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmData:"))
    return int(line.split()[1]) << 10


def lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, a machine's or a GPU's. Torch's errors are known by name: not every step loads it."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(told in str(error) for told in _NO_MEMORY)


def in_a_line(error: BaseException) -> str:
    """An error's kind and words; of one that came by way of Ray, those of the first."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}".removesuffix(": ").removesuffix(".")


def explained(error: BaseException, step: Step, asked: Resources, died: bool) -> BaseException:
    """An out-of-memory error as one that names the step and the setting; any other as it is.

    Args:
        error: what a worker raised, or Ray for it.
        step: that was running.
        asked: what it reserved.
        died: whether the process is gone: a limit can end it, where a library does not survive a refused allocation.
    """
    if exit_code_of(error) is not None:  # it explains itself
        return error
    setting = f"execution.resources.{step.name}.memory_gb"
    limit = f"{asked.memory / GB:g} GB ({setting})" if asked.memory is not None else None
    of_the_node = isinstance(error, MemoryError) or _NO_MEMORY[0] in str(error)
    if limit is not None and of_the_node:
        return OutOfMemory(f"{step.label} needs more memory than its limit of {limit}; raise the limit")
    told = (
        "raise it, so that fewer steps run at the same time"
        if limit
        else "set it, so that fewer steps run at the same time"
    )
    if type(error).__name__ == "OutOfMemoryError" and died:  # Ray's: the node ran full, and this process was chosen
        return OutOfMemory(f"{step.label} was ended because its node ran out of memory; {setting}: {told}")
    if limit is not None and died:
        return OutOfMemory(f"{step.label}: its process died, perhaps out of memory: its limit is {limit}. {error}")
    if lacks_memory(error) and not died:
        mend = f"{setting}: {told}" if of_the_node else "take a GPU with more memory"
        return OutOfMemory(f"{step.label} ran out of memory ({in_a_line(error)}); {step.less_memory or mend}")
    return error
