"""`dtype: auto`, and what of the machine that plans is part of keys."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestration.graph import in_order
from orchestration.store.artifacts import open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from tests.integration.workspace import REPOSITORY, WORKFLOW, make_workspace, write
from workflows.config.yaml_file import read_workflow
from workflows.inputs import precision
from workflows.inputs.precision import Machine, this_machine
from workflows.registry import WORKFLOWS
from workflows.session import open_session

PLAIN, AMX = Machine(False, False, False), Machine(False, False, True)
OLD_GPU, GPU = Machine(True, False, False), Machine(True, True, False)


@pytest.mark.parametrize(
    ("machine", "stored", "gpus", "expected"),
    [
        (PLAIN, "float16", None, "float32"),
        (PLAIN, "bfloat16", None, "float32"),
        (AMX, "float16", None, "bfloat16"),
        (AMX, "bfloat16", None, "bfloat16"),
        (AMX, "float32", None, "float32"),
        (GPU, "float16", None, "float16"),
        (GPU, "bfloat16", None, "bfloat16"),
        (GPU, "float32", None, "float32"),
        (GPU, "bfloat16", 0, "float32"),
        (PLAIN, "bfloat16", 0.5, "bfloat16"),  # of a cluster
    ],
)
def test_auto_is_what_the_device_is_fast_in(machine: Machine, stored: str, gpus: float | None, expected: str) -> None:
    assert machine.dtype("auto", stored, gpus) == expected
    assert machine.dtype("float16", stored, gpus) == "float16"


@pytest.mark.parametrize(
    ("machine", "gpus", "expected"),
    [
        (PLAIN, None, False),
        (AMX, None, True),
        (OLD_GPU, None, False),
        (GPU, None, True),
        (GPU, 0, False),
        (AMX, 1, True),
    ],
)
def test_products_are_fast_where_the_device_is(machine: Machine, gpus: float | None, expected: bool) -> None:
    assert machine.bf16(gpus) == expected


def test_a_machine_is_tried_out_once_for_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "tried_out", lambda: AMX)
    assert this_machine(FingerprintCache(tmp_path / "facts.json")) == AMX
    monkeypatch.setattr(precision, "tried_out", lambda: PLAIN)
    assert this_machine(FingerprintCache(tmp_path / "facts.json")) == AMX
    monkeypatch.setattr(precision, "_processor", lambda: "another")
    assert this_machine(FingerprintCache(tmp_path / "facts.json")) == PLAIN


def steps(folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Any]:
    """Those of a workflow, planned on a machine."""
    monkeypatch.setattr(precision, "tried_out", lambda: machine)
    file = folder / write(folder, "w.yaml", {**WORKFLOW, "seeds": [0], "search": {"trials": 0}, **changes})
    store = open_store(folder / f"store-{machine.cpu_bf16}-{machine.gpu}")
    return list(in_order(open_session(read_workflow(file, WORKFLOWS), file, store, None, None).job.targets))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the bundled model, whose weights are float16, as a folder of the user's."""
    shutil.copytree(REPOSITORY / "workflows" / "catalog" / "models" / "reference-1m", tmp_path / "mine")
    return make_workspace(tmp_path)


@pytest.mark.parametrize(("machine", "expected"), [(PLAIN, "float32"), (AMX, "bfloat16"), (GPU, "float16")])
def test_the_dtype_is_in_the_key_and_told(
    folder: Path, machine: Machine, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = steps(folder, machine, monkeypatch, models=["mine"], methods=["linear-probe"])
    encode = [step for step in found if step.name == "encode"]
    assert {step.identity["dtype"] for step in encode} == {expected}
    assert all(step.label.endswith(f" in {expected}") == (expected != "float32") for step in encode)


def test_products_of_a_finetuning_are_in_its_key_where_they_differ_from_the_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readings(machine: Machine, model: str) -> list[tuple[str, str | None]]:
        found = steps(folder, machine, monkeypatch, models=[model], methods=["lora", "full"], reference_method="lora")
        read = [step.identity["reading"] for step in found if step.name == "finetune"]
        return [(reading["dtype"], reading.get("products")) for reading in read]

    assert readings(PLAIN, "reference-1m") == [("float32", None)] * 2
    assert readings(AMX, "reference-1m") == [("float32", "bfloat16")] * 2
    assert readings(AMX, "mine") == [("bfloat16", None), ("float32", "bfloat16")]
