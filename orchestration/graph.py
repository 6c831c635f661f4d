"""Steps of work as pure data, and the keys that name their results. No I/O here.

A step's key is a hash of what its output depends on and of nothing else: its name, code version, identity fields,
and the keys of its inputs. Devices, batch sizes, worker counts and paths go in `local` and `resources`, which never
enter the key. An unknown type in an identity field raises: a key must never depend on `str(obj)`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

KEY_CHARACTERS = 16  # of the 64 hexadecimal digits, in folder names
FOLDER = rf"[A-Za-z0-9_][A-Za-z0-9_.-]*/[0-9a-f]{{{KEY_CHARACTERS}}}"  # what `folder_of` gives


@dataclass(frozen=True)
class Resources:
    """What Ray reserves for a step, or for each worker of sharded work.

    Attributes:
        cpus: processor cores; None is a node's cores divided by `workers`, with a GPU at most four.
        gpus: GPUs, fractions allowed; None is one where the cluster has any.
        workers: of sharded work, at most; None is one a GPU, or one where there is none.
        memory: bytes, reserved and enforced; None is neither.
        waits: whether the step only waits for workers of its own: those reserve what they use.
    """

    cpus: float | None = 1.0
    gpus: float | None = 0.0
    workers: int | None = None
    memory: int | None = None
    waits: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """One node of the graph. Its key is made of name, version, identity and inputs alone.

    Attributes:
        name: the kind of step, also its folder in the store: "encode".
        label: what a person reads in a plan: "encode reference trec test". Not identity.
        version: the code version; raise it when the same inputs shall give another result.
        run: "module:callable" that fills the artifact (see execution/work.py).
        identity: JSON fields that the output depends on.
        inputs: role -> step whose artifact is read.
        local: JSON values that do not change the output (paths, batch sizes).
        setup: for sharded work, what a worker loads once; steps of equal `run` and `setup` share workers. None: one
            call does it all.
        resources: what Ray reserves.
        workers: what each worker reserves that the step itself starts.
        cost: the part of a result's cost that its seconds are counted in; "" is none.
        files: paths outside the store that it reads, on whatever node it runs.
        bytes: that it will write at most, where that is much.
        less_memory: what a user changes so that it takes less: "lower execution.batch".
        subject: names of what it is about, by which a record of a run is searched: {"task": "trec", "split": "test"}.
        remarks: "module:callable" that reads out of the artifact what a reader of results should know.
        sources: modules whose change since the artifact was made is worth a warning.
    """

    name: str
    label: str
    version: int
    run: str
    identity: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Step] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    setup: Mapping[str, Any] | None = None
    resources: Resources = Resources()
    workers: Resources | None = None
    cost: str = ""
    files: tuple[str, ...] = ()
    bytes: int = 0
    less_memory: str = ""
    subject: Mapping[str, str] = field(default_factory=dict)
    remarks: str = ""
    sources: tuple[str, ...] = ()

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The readable document that the key is a hash of."""
        return {
            "step": self.name,
            "version": self.version,
            "identity": dict(self.identity),
            "inputs": {role: step.key for role, step in sorted(self.inputs.items())},
        }

    @cached_property
    def key(self) -> str:
        """SHA-256 of the payload, in hexadecimal. Raises TypeError or ValueError for a field JSON cannot hold."""
        return key_of(self.payload)

    @property
    def folder(self) -> str:
        """Where the artifact lies below the store."""
        return folder_of(self.name, self.key)


def called(subject: Mapping[str, str]) -> str:
    """The names of a subject in a line, as labels have them."""
    return " ".join(subject.values())


def folder_of(name: str, key: str) -> str:
    """Where the artifact of a step and key lies below the store."""
    return f"{name}/{key[:KEY_CHARACTERS]}"


def is_folder(place: str) -> bool:
    """Whether a path below the store is named as a step's or a run's folder: it may have other things in it."""
    return re.fullmatch(FOLDER, place) is not None


def key_of(payload: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a document, in hexadecimal."""
    return hashlib.sha256(canonical(payload).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces, the same text for the same value.

    Raises TypeError for anything but None, bool, int, float, str, list, tuple and dict with string keys; ValueError
    for NaN and infinities.
    """
    _check(value, "payload")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _check(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{where}: key {name!r} is a {type(name).__name__}; identity keys are strings")
            _check(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} has no JSON form; identity numbers are finite")
    elif not (value is None or isinstance(value, bool | int | str)):
        raise TypeError(
            f"{where}: a {type(value).__name__} cannot enter a key; use None, bool, int, float, str, list, dict"
        )


def in_order(targets: Iterable[Step]) -> Iterator[Step]:
    """Each step the targets need, once a key, inputs before the steps that read them."""
    seen: set[str] = set()

    def visit(step: Step) -> Iterator[Step]:
        if step.key in seen:
            return
        seen.add(step.key)
        for role in sorted(step.inputs):
            yield from visit(step.inputs[role])
        yield step

    for target in targets:
        yield from visit(target)


def run_id_of(targets: Iterable[Step]) -> str:
    """A run is named by all its step keys, so the same work is the same run."""
    return key_of({"steps": sorted(step.key for step in in_order(targets))})[:KEY_CHARACTERS]
