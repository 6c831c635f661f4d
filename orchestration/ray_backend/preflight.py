"""Before anything heavy: has every node of the cluster what the work needs? All that is missing, in one report.

Each node is asked by a task of its own, which reserves nothing and so waits behind no work; a node that does not answer
is named instead of waited for. That all nodes see one store is shown by files: every node reads what the driver wrote
there, and the driver reads what every node wrote. Of a store in a bucket these are objects.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestration.errors import ClusterError, StoreError
from orchestration.execution.work import version_of, versions_of
from orchestration.graph import Step
from orchestration.ray_backend.placement import Reserves, check_fits, gpus_of, reserved
from orchestration.store.files import link, readable
from orchestration.store.mirror import Mirror
from orchestration.store.scratch import SCRATCH

ANSWER_SECONDS = 60.0  # for a node to answer; a first task there unpacks a job's files and starts a process
_TORCH_SECONDS = 30.0  # for a node's torch to be loaded; of one that takes longer nothing is said
_SETTLE_SECONDS = 5.0  # for a file that a node wrote to be seen here through a network file system
_REMOVED = "so that a job's files are removed while they are read. Start the second with another --temp-dir."
_PACKAGE = "_ray_pkg_"  # in the names of folders that Ray unpacks
_FOLDER = "preflight"  # in the store's scratch folder


@dataclass(frozen=True)
class Needs:
    """What the work needs of a cluster.

    Attributes:
        store: the folder that all nodes must see and write.
        steps: that will run.
        source: packages whose code must be the same everywhere.
        packages: those whose versions must be.
        missing: what is known to be missing already, with the fix.
        mirror: of the bucket that all nodes must read and write, where the store is in one.
        install: what to do where a node lacks the code.
    """

    store: Path
    steps: Sequence[Step]
    source: tuple[str, ...]
    packages: tuple[str, ...] = ()
    missing: Sequence[str] = ()
    mirror: Mirror | None = None
    install: str = "Install the same code there."

    @property
    def bytes(self) -> int:
        """That the steps will write, estimated."""
        return sum(step.bytes for step in self.steps)

    @property
    def files(self) -> dict[str, int]:
        """Path -> bytes of every file outside the store that the steps read."""
        return {
            path: Path(path).stat().st_size for path in sorted({path for step in self.steps for path in step.files})
        }


@dataclass(frozen=True, eq=False)
class Node:
    """A node that is alive, as Ray lists it."""

    node_id: str
    address: str
    resources: Mapping[str, float]

    def __str__(self) -> str:
        return f"node {self.address} ({self.node_id[:6]})"

    @property
    def has_gpu(self) -> bool:
        """One that Ray found there itself, beside cores; GPUs that it was only told of, as by tests, have no type."""
        typed = any(name.startswith("accelerator_type:") for name in self.resources)
        return typed and self.resources.get("GPU", 0) > 0 and self.resources.get("CPU", 1) >= 1


def preflight(needs: Needs, reserves: Reserves, seconds: float = ANSWER_SECONDS) -> str:
    """What was found, in a line. Raises ClusterError with all that is missing and what to do about each.

    This process must be connected to the cluster.
    """
    nodes = _nodes()
    resources = [node.resources for node in nodes]
    free = shutil.disk_usage(needs.store).free
    missing = [
        *needs.missing,
        *_without_room(needs, reserves, resources),
        *_without_space(needs, free),
    ]
    folder = needs.store / SCRATCH / _FOLDER / uuid4().hex
    folder.mkdir(parents=True)
    try:
        (folder / "driver").write_text(folder.name)
        if needs.mirror is not None:
            needs.mirror.bucket.put(needs.mirror.key(folder / "driver"), folder / "driver")
        wanted = [
            *(reserved(step, reserves) for step in needs.steps),
            *(step.workers for step in needs.steps if step.workers),
        ]
        gpus = any(gpus_of(asked, resources) for asked in wanted)
        answers, silent = _ask(nodes, needs, gpus, folder, seconds)
        missing += [
            f"{node} gave no answer within {seconds:g} s. It is frozen, cut off or overloaded: end it, or take it out "
            "of the cluster."
            for node in silent
        ]
        here = facts_of(needs.source, needs.packages)
        for node, answer in answers.items():
            missing += [f"{node}: {problem}" for problem in answer["missing"]]
            missing += [f"{node}: {problem}" for problem in differences(here, answer["facts"])]
        missing += _unpacked_twice(answers)
        if needs.mirror is None:
            missing += _unseen([node for node, answer in answers.items() if answer["wrote"]], folder)
        else:
            missing += _without_shared_folder(needs, answers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if needs.mirror is not None:
            needs.mirror.remove(needs.mirror.key(folder))
    if missing:
        raise ClusterError(report(missing))
    return (
        f"preflight: {len(nodes)} {'node sees' if len(nodes) == 1 else 'nodes see'} the store and run the same "
        f"versions; about {readable(needs.bytes)} will be written, {readable(free)} are free"
    )


def report(missing: Sequence[str]) -> str:
    """All that is missing, as one message."""
    things = "1 thing is" if len(missing) == 1 else f"{len(missing)} things are"
    return "\n".join([f"the cluster is not ready, nothing was run; {things} missing:", *(f"  {m}" for m in missing)])


def facts_of(source: tuple[str, ...], packages: tuple[str, ...]) -> dict[str, str]:
    """Versions of what results depend on, in this process, and a digest of its code."""
    return {"Python": platform.python_version(), **versions_of(packages), "the code": code_digest(source)}


def code_digest(packages: Sequence[str]) -> str:
    """Of the Python files of packages, as this process would import them."""
    digest = hashlib.sha256()
    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"{package} is one of ours"
        assert spec.submodule_search_locations is not None, f"{package} is a package"
        root = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root)}".encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """What of the driver's versions another node does not have. 2.13.0+cpu and 2.13.0+cu128 are one version."""
    return [
        f"{name} is {there.get(name, 'not installed')}, the driver's is {version}. Install the same on every node, "
        "from one image or one constraints.txt."
        for name, version in here.items()
        if there.get(name, "").partition("+")[0] != version.partition("+")[0]
    ]


def look(
    store: str,
    folder: str,
    name: str,
    files: Mapping[str, int],
    carried: str,
    source: tuple[str, ...],
    packages: tuple[str, ...],
    mirror: Mirror | None = None,
    gpu: bool = False,
) -> dict[str, Any]:
    """What a node says when it is asked: runs there.

    Args:
        store: folder of the store.
        folder: in the store, where the nodes leave files for each other to find.
        name: the file that this node leaves there.
        files: paths that the steps read -> their bytes.
        carried: the driver's folder, which goes along with a job.
        source: packages whose code is compared.
        packages: installed packages whose versions are compared.
        mirror: of a store in a bucket.
        gpu: whether torch must find a GPU.
    """
    missing, wrote = [], False
    place = Path(folder)
    shared = _read(place / "driver") == place.name
    mend = "Mount the folder that the other nodes use at the same path, writable for this user."
    if mirror is not None:
        missing += _look_into_bucket(mirror, place, name, shared)
    elif not Path(store).is_dir():
        missing.append(f"no folder {store} for the store. {mend}")
    elif not shared:
        missing.append(f"{store} is another folder than the driver's. {mend}")
    else:
        try:
            (place / name).write_text(place.name)
            link(place / name, linked := place / f"{name}-{uuid4().hex}")
            linked.unlink()
            wrote = True
        except StoreError as error:  # no hard links
            missing.append(str(error))
        except OSError as error:
            missing.append(f"the store {store} cannot be written ({error.strerror}). {mend}")
    for path, size in files.items():
        if not Path(path).is_file():
            along = Path(path).is_relative_to(carried)
            mend = "Start Ray with the same --temp-dir on every node" if along else "Put it where every node sees it"
            missing.append(f"no file {path}. {mend}.")
        elif (found := Path(path).stat().st_size) != size:
            missing.append(f"{path} has {found:,} bytes, the driver's {size:,}. Copy the same file to every node.")
    if gpu:
        missing += _without_use_of_gpus()
    at = [platform.node(), os.getcwd()]
    return {"missing": missing, "facts": facts_of(source, packages), "wrote": wrote, "shared": shared, "at": at}


def _without_use_of_gpus() -> list[str]:
    """What a node with GPUs lacks to compute on them.

    A process of its own is asked: it sees them all while others hold them, and neither torch nor a GPU stays loaded.
    """
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    asked = [sys.executable, "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    try:
        found = subprocess.run(asked, env=environment, capture_output=True, timeout=_TORCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return []
    if found.returncode == 0:
        return []
    return [
        f"it gives GPUs, which its torch {version_of('torch')} cannot use. Install a build of the same version for a "
        "CUDA that its driver bears (`nvidia-smi` names both), or start Ray there with --num-gpus=0."
    ]


def _look_into_bucket(mirror: Mirror, place: Path, name: str, shared: bool) -> list[str]:
    """What a node lacks for a store in a bucket: it reads the driver's object and writes one of its own."""
    mend = mirror.bucket.node_setup
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(place.name)
        if mirror.bucket.get(mirror.key(place / "driver")) != place.name.encode():
            return [f"{mirror.bucket} is of another server than the driver's. {mend}"]
        mirror.bucket.put(mirror.key(place / name), place / name)
    except StoreError as error:
        return [f"{error}. {mend}"]
    except OSError as error:
        return [
            f"{mirror.root} cannot be written ({error.strerror}), where copies from the bucket shall lie. Start the "
            "driver with $VOCABSEM_CACHE set to a path that every node can write."
        ]
    finally:
        if not shared:
            shutil.rmtree(place, ignore_errors=True)
    return []


def _nodes() -> list[Node]:
    import ray

    return [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]
    ]


def _ask(
    nodes: Sequence[Node], needs: Needs, gpus: bool, folder: Path, seconds: float
) -> tuple[dict[Node, dict[str, Any]], list[Node]]:
    """The answers of the nodes, and those that gave none; `gpus`: whether any is wanted."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked, here, files = {}, _here(), needs.files
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node_id=node.node_id, soft=False)
        place = (str(needs.store), str(folder), node.node_id)
        given = (*place, files, here, needs.source, needs.packages, needs.mirror, gpus and node.has_gpu)
        task = ray.remote(look).options(name="preflight", num_cpus=0, max_retries=0, scheduling_strategy=there)
        asked[task.remote(*given)] = node
    done, late = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    answers, silent = {}, [asked[ref] for ref in late]
    for ref in late:
        ray.cancel(ref, force=True)
    for ref in done:
        try:
            answers[asked[ref]] = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # it runs there, and its code is not ours, say
            cause = str(error.cause).splitlines()[0]
            told = {"missing": [f"does not run this code ({cause}). {needs.install}"], "wrote": False, "shared": False}
            facts = facts_of(needs.source, needs.packages)
            answers[asked[ref]] = {**told, "facts": facts, "at": [asked[ref].node_id]}
        except ray.exceptions.RayError:  # it went away
            silent.append(asked[ref])
    return answers, silent


def _here() -> str:
    """This process's folder. Raises ClusterError where Ray has removed it already (see `_unpacked_twice`)."""
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        shared = "another node on this machine uses its folder for Ray's files"
        raise ClusterError(f"the folder of this job's files is gone: {shared}, {_REMOVED}") from error


def _unpacked_twice(answers: Mapping[Node, Mapping[str, Any]]) -> list[str]:
    """Nodes on one machine that unpack a job's files in the same place, where Ray removes what it finds there."""
    places: dict[tuple[str, ...], Node] = {}
    missing = []
    for node, answer in answers.items():
        first = places.setdefault(tuple(answer["at"]), node)
        if first is not node and _PACKAGE in answer["at"][-1]:
            missing.append(f"{node} and {first} are on one machine and use one folder for Ray's files, {_REMOVED}")
    return missing


def _without_shared_folder(needs: Needs, answers: Mapping[Node, Mapping[str, Any]]) -> list[str]:
    """A bucket is enough for artifacts; trainers hand each other checkpoints through the scratch folder."""
    first = next((step.label for step in needs.steps if step.workers is not None), None)
    if first is None or len(answers) == 1 or all(answer["shared"] for answer in answers.values()):
        return []
    return [
        f"{first} has workers that hand each other files through {needs.store}, which not every "
        "node sees. Set $VOCABSEM_CACHE to a folder that all nodes share, or run on one node."
    ]


def _unseen(nodes: Sequence[Node], folder: Path) -> list[str]:
    """Nodes whose file does not appear here, though they could write it."""
    until = time.monotonic() + _SETTLE_SECONDS
    waited = list(nodes)
    while waited := [node for node in waited if _read(folder / node.node_id) != folder.name]:
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    cache = "what it writes into the store does not appear here. Mount the folder without a client-side cache."
    return [f"{node}: {cache}" for node in waited]


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _without_room(needs: Needs, reserves: Reserves, nodes: Sequence[Mapping[str, float]]) -> list[str]:
    """Reservations that no node could ever grant, once a kind of step."""
    from orchestration.ray_backend.pools import group_size, pool_size

    kinds = {step.name: step for step in needs.steps}
    sharded = {step.name: reserved(step, reserves) for step in needs.steps if step.setup is not None}
    missing = []
    for step in kinds.values():
        try:
            check_fits(step, reserved(step, reserves), nodes)
        except ClusterError as error:
            missing.append(str(error))
            sharded.pop(step.name, None)  # told once
    pools = [(name, pool_size, wanted) for name, wanted in sharded.items()]
    groups = [(step.label, group_size, step.workers) for step in needs.steps if step.workers is not None]
    for name, size, wanted in (*pools, *groups):
        try:
            size(wanted, nodes)
        except ClusterError as error:
            missing.append(f"{name}: {error}")
    return missing


def _without_space(needs: Needs, free: int) -> list[str]:
    if needs.bytes <= free:
        return []
    return [
        f"{needs.store} has {readable(free)} free, and about {readable(needs.bytes)} will be written. Make room, "
        "or name another store."
    ]
