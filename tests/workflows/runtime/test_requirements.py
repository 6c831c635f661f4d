"""What a workflow needs of a cluster is read off its steps."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import Resources, in_order
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from tests.integration.workspace import WORKFLOW, make_workspace, write
from tests.workflows.test_own_method import CONSTANT
from workflows.config.yaml_file import read_workflow
from workflows.errors import ConfigError
from workflows.registry import WORKFLOWS
from workflows.runtime.engines import reserves
from workflows.runtime.requirements import needs_of
from workflows.session import open_session
from workflows.steps.fit import device_of


def opened(folder, document):
    file = folder / write(folder, "w.yaml", document)
    return open_session(read_workflow(file, WORKFLOWS), file, open_store(folder / "store"), None, None)


@pytest.fixture
def folder(tmp_path):
    return make_workspace(tmp_path)


def needed(session):
    return needs_of(list(in_order(session.job.targets)), session.store)


def test_the_estimate_is_what_the_arrays_take(folder):
    encoding = {"layers": ["layer_00", "head"]}
    session = opened(folder, {**WORKFLOW, "methods": ["affinity"], "encoding": encoding, "models": ["reference-1m"]})
    needs = needed(session)
    quiet = lambda *_: None  # noqa: E731
    plan = make_plan(session.job.targets, session.store)
    run_plan(plan, lambda: InlineEngine(session.store, quiet), quiet)
    made = {step: session.store.find(step) for step in needs.steps if step.bytes}
    assert {step.name for step in made} == {"encode", "head", "basis"}
    real = sum(entry["bytes"] for artifact in made.values() for entry in artifact.manifest["files"].values())
    half_head = next(artifact for step, artifact in made.items() if step.name == "head").manifest["files"]
    stored = sum(entry["bytes"] for name, entry in half_head.items() if name.endswith(".arrow"))
    assert needs.bytes - stored == pytest.approx(real, rel=0.1)  # a head is counted as float32, this one is float16


def test_every_file_outside_the_store_is_named_with_its_size(folder):
    found = needed(opened(folder, WORKFLOW)).files
    assert found[str(folder / "train.jsonl")] == (folder / "train.jsonl").stat().st_size
    assert [name for name in found if name.endswith("reference/model.safetensors")]


def test_a_step_that_is_told_of_a_path_declares_the_file(folder):
    """Every path among a step's local values, whatever they are called, is of a declared file or the folder of one."""
    (folder / "own.py").write_text(CONSTANT)
    document = {**WORKFLOW, "methods": ["icl", "icl-dense", "lora", "calibration", "own.py"], "reference_method": "icl"}
    seen = set()
    for step in needed(opened(folder, document)).steps:
        for value in {**step.local, **(step.setup or {})}.values():
            if isinstance(value, str) and value.startswith("/"):
                seen.add(step.name)
                assert value in step.files or Path(value) in {Path(file).parent for file in step.files}, step.label
    assert seen == {"texts", "labels", "verbalizer", "head", "encode", "demonstrations", "search", "finetune", "fit"}


def test_texts_beside_demonstrations_count_before_they_are_chosen(folder):
    document = {**WORKFLOW, "methods": ["icl", "icl-dense"], "models": ["reference-1m"]}
    needs = needed(opened(folder, document))
    encodes = [step for step in needs.steps if step.name == "encode"]
    head = next(step for step in needs.steps if step.name == "head")
    width = head.bytes // 4 // head.identity["kept_rows"]
    assert sorted({step.bytes // (2 * width) for step in encodes}) == [3, 30, 60]  # content-free, test, training rows
    assert needs.bytes >= sum(step.bytes for step in encodes)


def test_a_sweeps_workers_are_asked_for_where_there_are_any(folder):
    document = {
        "workflow": "sweep",
        "name": "s",
        "model": "reference",
        "task": "small.yaml",
        "method": "calibration",
        "execution": {"gpus": 1, "cores": 3},
    }
    (asked,) = [step.workers for step in needed(opened(folder, document)).steps if step.workers]
    assert asked == Resources(3, 1)
    inline = {**document, "execution": {"executor": "inline"}}
    assert not [step for step in needed(opened(folder, inline)).steps if step.workers]


def test_the_workers_of_a_finetuning_are_asked_for(folder):
    execution = {"trainers": 2, "cores_per_trainer": 3, "gpus_per_trainer": 1}
    session = opened(folder, {**WORKFLOW, "methods": ["lora", "knn"], "seeds": [0], "execution": execution})
    told = {step.name: step.workers for step in needed(session).steps if step.workers}
    assert told == {"search": Resources(1, 1), "finetune": Resources(3, 1, 2)}


@pytest.mark.parametrize(("asked", "gpus"), [({}, None), ({"gpus_per_fit": 0.5}, 0.5), ({"gpus_per_fit": 0}, 0)])
def test_fits_and_searches_of_a_method_that_uses_a_gpu_reserve_one(folder, asked, gpus):
    methods = {**WORKFLOW, "methods": ["calibration", "knn"], "reference_method": "knn"}
    plain, session = opened(folder, methods), opened(folder, {**methods, "execution": asked})
    steps = list(in_order(session.job.targets))
    assert [step.key for step in steps] == [step.key for step in in_order(plain.job.targets)]
    told = {(step.name, step.identity["method"], step.resources.gpus) for step in steps if "method" in step.identity}
    assert told == {
        (name, method, n) for name in ("search", "fit") for method, n in (("calibration", gpus), ("knn", 0))
    }


@pytest.mark.parametrize(
    ("gpus", "there", "device"), [(None, True, "cuda"), (0.5, True, "cuda"), (0, True, "cpu"), (1, False, "cpu")]
)
def test_a_fit_runs_on_the_gpu_that_it_reserved(monkeypatch, gpus, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of(SimpleNamespace(local={"gpus": gpus})) == device


def test_resources_enter_no_key_and_become_bytes(folder):
    execution = {"resources": {"fit": {"cpus": 2, "memory_gb": 1.5}, "encode": {"memory_gb": 3}}}
    plain, asked = opened(folder, WORKFLOW), opened(folder, {**WORKFLOW, "execution": execution})
    assert [step.key for step in in_order(plain.job.targets)] == [step.key for step in in_order(asked.job.targets)]
    assert reserves(asked.config.execution) == {
        "fit": {"cpus": 2, "memory": 1_500_000_000},
        "encode": {"memory": 3 * 10**9},
    }


def test_a_kind_of_step_that_the_workflow_lacks_is_told_with_its_line(folder):
    with pytest.raises(
        ConfigError, match=r"w.yaml:\d+: execution.resources: no step of kind 'fitt'.*did you mean 'fit'"
    ):
        opened(folder, {**WORKFLOW, "execution": {"resources": {"fitt": {"cpus": 2}}}})
