"""A plain nn.Sequential named in a workflow file goes the way of a language model, from basis to predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestration.graph import in_order
from orchestration.runs.record import runs
from orchestration.store.artifacts import Store, open_store
from tests.workflows.networks.places import CLASSES, METHODS, TABLE, WORDS, blobs, done, make_workspace, write_workflow
from tests.workflows.prediction.conftest import Finished
from tests.workflows.sweeps import QUIET
from workflows.api import open_run
from workflows.cli.basis import make_basis
from workflows.cli.validate import validate
from workflows.config.yaml_file import read_workflow
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column
from workflows.prediction.export import export, register_model
from workflows.prediction.service import Service
from workflows.registry import WORKFLOWS
from workflows.session import RunSummary, open_session


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def compared(base: Path, store: Store) -> RunSummary:
    return done(write_workflow(base, "numbers", TABLE), store)


def module_of(base: Path) -> torch.nn.Sequential:
    module = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    module.load_state_dict(load_file(base / "net.safetensors"))
    return module


def keys(file: Path, store: Store) -> dict[str, str]:
    session = open_session(read_workflow(file, WORKFLOWS), file, store, None, None)
    return {step.label: step.key for step in in_order(session.job.targets)}


def test_every_method_gets_a_score_and_the_report_shows_it(compared: RunSummary, store: Store) -> None:
    assert compared.failures == []
    means = {result.method: result.mean for result, _ in compared.results}
    assert list(means) == METHODS
    assert min(means.values()) > 0.6, means  # of three classes
    (record,) = runs(store)
    assert all(method in (record.folder / "report.html").read_text(encoding="utf-8") for method in METHODS)


def test_states_are_the_modules_and_predictions_those_of_its_heads_pseudoinverse(
    base: Path, store: Store, compared: RunSummary
) -> None:
    module, rows = module_of(base), [CLASSES.index(word) for word in WORDS.values()]
    with torch.inference_mode():
        numbers = torch.tensor([[row["x"], row["y"]] for row in blobs(45, 45)])
        states, logits = module[:-1](numbers).numpy(), module(numbers).numpy()
    found = open_run(store=store.root)
    np.testing.assert_allclose(found.states("net-numbers", "blobs", "test", form="numpy"), states, atol=1e-6)
    np.testing.assert_array_equal(found.states("net-numbers", "blobs", "test", "layer_00", form="numpy"), numbers)
    basis = np.linalg.pinv(module[-1].weight.detach().double().numpy()).T[rows]
    cosines = (states @ basis.T) / np.linalg.norm(basis, axis=1)
    run = Finished(base, store)
    for method, expected in (("zero-shot", logits[:, rows]), ("affinity", cosines)):
        stored = read_column(run.choose(method=method).fit, "prediction")
        assert stored.tolist() == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("method", ["zero-shot", "calibration", "semantic-prior"])
def test_new_rows_get_the_labels_that_the_run_gave_them(
    base: Path, store: Store, compared: RunSummary, method: str
) -> None:
    run = Finished(base, store)
    stored = read_column(run.choose(method=method).fit, "prediction").tolist()
    assert run.predict(base / "test.jsonl", method=method).numbers.tolist() == stored
    service = Service(run.choose(method=method), store)
    rows = [{"x": str(row["x"]), "y": row["y"]} for row in blobs(45, 45)]  # as text, as `serve` takes them
    assert [one["label"] for one in service.documents(rows)] == [list(WORDS)[number] for number in stored]


def test_validate_counts_rows_and_names_the_classes(base: Path) -> None:
    found = validate(base / "workflow.yaml", None)
    assert found.problems == []
    (task,) = found.tasks
    assert task.rows["train"] == {"warm": 20, "cold": 20, "dull": 20}
    assert task.words[0].tokens == {label: [word] for label, word in WORDS.items()}


def test_keys_follow_weights_source_and_rows_and_no_path(base: Path, store: Store, tmp_path: Path) -> None:
    copy = make_workspace(tmp_path)
    file = write_workflow(copy, "numbers", TABLE)
    first = keys(write_workflow(base, "numbers", TABLE), store)
    assert keys(file, store) == first
    weights = load_file(copy / "net.safetensors")
    save_file({name: weight + 0.1 for name, weight in weights.items()}, copy / "net.safetensors")
    changed = keys(file, store)
    assert {label.split()[0] for label in first if first[label] == changed[label]} == {"rows", "labels", "verbalizer"}
    save_file(weights, copy / "net.safetensors")
    with open(copy / "net.py", "a", encoding="utf-8") as source:
        source.write("\n# another reading\n")
    changed = keys(file, store)
    assert first["head net-numbers"] == changed["head net-numbers"]
    assert all(first[label] != changed[label] for label in first if label.startswith("encode"))


def test_rows_of_a_users_function_and_of_a_file_are_the_same_rows(base: Path, store: Store, tmp_path: Path) -> None:
    rows = {split: blobs(count, count) for split, count in (("train", 60), ("test", 45))}
    make_workspace(tmp_path)
    lines = [f"ROWS = {json.dumps(rows)}", "def train():", "    yield from ROWS['train']"]
    own = "\n".join([*lines, "def test():", "    return ROWS['test']"])
    (tmp_path / "rows.py").write_text(own, encoding="utf-8")
    source = {**TABLE, "train": "rows.py:train", "test": "rows.py:test"}
    assert keys(write_workflow(tmp_path, "numbers", source), store) == keys(base / "workflow.yaml", store)


def test_what_takes_language_models_alone_says_so(
    base: Path, store: Store, compared: RunSummary, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"net.py:numbers: is no language model, and `vocabsem basis` shows language"):
        make_basis("net.py:numbers", store, QUIET, with_spectrum=False)
    run = Finished(base, store)
    with pytest.raises(ConfigError, match="net-numbers: is a network of your own, and the exported script reads"):
        export(run.choose(method="linear-probe"), run.record, store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="net-numbers: is a network of your own, and MLflow's models read language"):
        register_model(run.choose(method="linear-probe"), run.record, store, None, "mine")
