"""What a workflow needs of a cluster is read off its steps."""

import pytest

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.graph import in_order
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import open_store
from tests.integration.workspace import WORKFLOW, make_workspace, write
from workflows.config.yaml_file import read_workflow
from workflows.errors import ConfigError
from workflows.registry import WORKFLOWS
from workflows.runtime.engines import reserves
from workflows.runtime.requirements import estimated_bytes, files_read, needs_of
from workflows.session import open_session


def opened(folder, document):
    file = folder / write(folder, "w.yaml", document)
    return open_session(read_workflow(file, WORKFLOWS), file, open_store(folder / "store"), None, None)


@pytest.fixture
def folder(tmp_path):
    return make_workspace(tmp_path)


def test_the_estimate_is_what_the_arrays_take(folder):
    encoding = {"layers": ["layer_00", "head"]}
    session = opened(folder, {**WORKFLOW, "methods": ["affinity"], "encoding": encoding, "models": ["reference-1m"]})
    steps = list(in_order(session.job.targets))
    estimated = estimated_bytes(steps, session.store)
    quiet = lambda *_: None  # noqa: E731
    plan = make_plan(session.job.targets, session.store)
    run_plan(plan, lambda: InlineEngine(session.store, quiet), quiet)
    made = [session.store.find(step) for step in steps if step.name in ("encode", "head", "basis")]
    real = sum(entry["bytes"] for artifact in made for entry in artifact.manifest["files"].values())
    half_head = session.store.find(next(step for step in steps if step.name == "head")).manifest["files"]
    stored = sum(entry["bytes"] for name, entry in half_head.items() if name.endswith(".arrow"))
    assert estimated - stored == pytest.approx(real, rel=0.1)  # a head is counted as float32, this one is float16
    assert estimated_bytes(steps, session.store) == estimated  # rows are now read off the texts in the store


def test_every_file_outside_the_store_is_named_with_its_size(folder):
    session = opened(folder, WORKFLOW)
    found = files_read(in_order(session.job.targets))
    assert found[str(folder / "train.jsonl")] == (folder / "train.jsonl").stat().st_size
    assert [name for name in found if name.endswith("reference/model.safetensors")]


def test_a_sweeps_workers_are_asked_for(folder):
    document = {
        "workflow": "sweep",
        "name": "s",
        "model": "reference",
        "task": "small.yaml",
        "method": "calibration",
        "execution": {"gpus": 1, "cores": 3},
    }
    file = folder / write(folder, "s.yaml", document)
    session = open_session(read_workflow(file, WORKFLOWS), file, open_store(folder / "store"), None, None)
    needs = needs_of(list(in_order(session.job.targets)), session.store)
    assert (needs.workers["sweep s"].cpus, needs.workers["sweep s"].gpus) == (3, 1)


def test_texts_beside_demonstrations_count_before_they_are_chosen(folder):
    document = {**WORKFLOW, "methods": ["icl", "icl-dense"], "models": ["reference-1m"]}
    session = opened(folder, document)
    encodes = [step for step in in_order(session.job.targets) if step.name == "encode"]
    width = encodes[0].local["width"]
    found = {step.label: estimated_bytes([step], session.store) for step in encodes}
    assert sorted({of // (2 * width) for of in found.values()}) == [3, 30, 60]  # content-free, test, training rows
    assert needs_of(list(in_order(session.job.targets)), session.store).bytes >= sum(found.values())


def test_the_workers_of_a_finetuning_are_asked_for(folder):
    execution = {"trainers": 2, "cores_per_trainer": 3, "gpus_per_trainer": 1}
    session = opened(folder, {**WORKFLOW, "methods": ["lora", "knn"], "seeds": [0], "execution": execution})
    workers = needs_of(list(in_order(session.job.targets)), session.store).workers
    told = {label: (asked.cpus, asked.gpus, asked.workers) for label, asked in workers.items()}
    assert told == {"search reference small lora": (1, 1, None), "finetune reference small lora seed 0": (3, 1, 2)}


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
