"""A torch module on a table of numbers goes the way of a language model: the same graph, statistics and views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from orchestration.errors import exit_code_of
from orchestration.graph import in_order
from orchestration.runs.record import runs
from orchestration.store.artifacts import Store, open_store
from orchestration.tracking.tracker import TrackingError
from tests.workflows.extractors.numbers import CLASSES, NUMBERS, Net, Numbers, net
from tests.workflows.sweeps import QUIET
from workflows.api import open_run
from workflows.cli.validate import validate
from workflows.compare.graph import Cell
from workflows.config.yaml_file import read_workflow
from workflows.errors import ConfigError
from workflows.extractors.registry import KINDS
from workflows.methods.inputs.states import read_column, read_states
from workflows.registry import WORKFLOWS
from workflows.session import RunSummary, Session, open_session, run

TASK: dict[str, Any] = {
    "name": "blobs",
    "source": {"train": "train.jsonl", "test": "test.jsonl", "columns": {"x": "x", "y": "y"}},
    "words": {"warm": "red", "cold": "blue", "dull": "grey"},  # the head's row "green" is no label's
}
METHODS = [
    "zero-shot", "affinity", "calibration", "calibration-paper", "linear-probe", "centroid", "knn", "knn-lm",
    "knn-prompting",
]  # fmt: skip
ENTRIES: dict[str, Any] = {
    "calibration-paper": {"method": "calibration-paper", "settings": {"learning_rate": 0.03}},
    "embedding": {"method": "calibration", "name": "embedding", "settings": {"targets": "embedding"}},
    "contextual": {"method": "zero-shot", "name": "contextual", "settings": {"contextual": True}},
}
WORKFLOW: dict[str, Any] = {
    "workflow": "compare",
    "models": ["net.safetensors"],
    "tasks": ["blobs.yaml"],
    "methods": [ENTRIES.get(name, name) for name in METHODS],
    "seeds": [0, 1],
    "search": {"trials": 2},
    "encoding": {"layers": ["all"], "store_dtype": "float32"},
    "execution": {"executor": "inline"},
}
SWEEP: dict[str, Any] = {
    "workflow": "sweep",
    "name": "blobs",
    "model": "net.safetensors",
    "task": "blobs.yaml",
    "method": "knn",
    "space": {"k": {"choice": [1, 3]}},
    "search": {"algorithm": "grid"},
    "execution": {"executor": "inline"},
}
PLACES = {"warm": (0.0, 1.0), "cold": (1.0, -1.0), "dull": (-1.0, -1.0)}


def blobs(count: int, seed: int) -> list[dict[str, Any]]:
    """Points around three places."""
    labels, noise = [list(PLACES)[n % 3] for n in range(count)], np.random.default_rng(seed).normal(size=(count, 2))
    points = [np.array(PLACES[label]) + 0.6 * one for label, one in zip(labels, noise, strict=True)]
    return [{"x": float(x), "y": float(y), "label": label} for (x, y), label in zip(points, labels, strict=True)]


def trained() -> nn.Sequential:
    rows, rng = blobs(300, 0), torch.random.get_rng_state()
    torch.manual_seed(0)
    made = net()
    torch.random.set_rng_state(rng)
    numbers = torch.tensor([[row["x"], row["y"]] for row in rows])
    classes = torch.tensor([CLASSES.index(TASK["words"][row["label"]]) for row in rows])
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(numbers), classes).backward()
        optimizer.step()
    return made


@pytest.fixture(scope="module", autouse=True)
def known() -> Any:
    """The line in the registry."""
    KINDS.insert(0, NUMBERS)
    yield
    KINDS.remove(NUMBERS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    save_file(trained().state_dict(), folder / "net.safetensors")
    for split, count in (("train", 60), ("test", 45)):
        rows = "".join(json.dumps(row) + "\n" for row in blobs(count, seed=count))
        (folder / f"{split}.jsonl").write_text(rows, encoding="utf-8")
    (folder / "blobs.yaml").write_text(json.dumps(TASK), encoding="utf-8")
    return folder


def opened(base: Path, store: Store, document: dict[str, Any]) -> Session:
    file = base / "workflow.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    return open_session(read_workflow(file, WORKFLOWS), file, store, None, None)


def done_of(session: Session) -> RunSummary:
    """A run that MLflow does not hear of."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workflows.session.fill", away)
        return run(session, QUIET)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def compared(base: Path, store: Store) -> tuple[RunSummary, list[Cell]]:
    session = opened(base, store, WORKFLOW)
    return done_of(session), session.job.cells  # type: ignore[attr-defined]


def test_every_method_on_features_goes_from_numbers_to_results(compared: tuple[RunSummary, list[Cell]]) -> None:
    summary, _ = compared
    assert summary.failures == []
    found = {result.method: (result, detail) for result, detail in summary.results}
    assert list(found) == METHODS
    means = {name: result.mean for name, (result, _) in found.items()}
    assert min(means.values()) > 0.6, means  # of three classes
    _, detail = found["linear-probe"]
    assert detail.versus is not None
    assert detail.versus.reference == "calibration"
    assert (detail.trials, detail.model_weights) == (2, sum(weight.numel() for weight in net().parameters()))
    assert None not in (detail.costs.encode, detail.costs.basis)


def test_predictions_are_those_of_the_module_and_of_its_heads_pseudoinverse(
    base: Path, store: Store, compared: tuple[RunSummary, list[Cell]]
) -> None:
    module = net(load_file(base / "net.safetensors"))
    rows = [CLASSES.index(word) for word in TASK["words"].values()]
    with torch.inference_mode():
        numbers = torch.tensor([[row["x"], row["y"]] for row in blobs(45, 45)])
        states, logits = module[:-1](numbers).numpy(), module(numbers).numpy()
    basis = np.linalg.pinv(module[-1].weight.detach().double().numpy()).T[rows]
    cosines = (states @ basis.T) / np.linalg.norm(basis, axis=1)
    fits = {cell.method: cell.fits[min(cell.fits)] for cell in compared[1]}
    np.testing.assert_allclose(read_states(store.find(fits["knn"].inputs["test"]), "head"), states, atol=1e-6)
    for method, expected in (("zero-shot", logits[:, rows]), ("affinity", cosines)):
        assert read_column(store.find(fits[method]), "prediction").tolist() == expected.argmax(axis=1).tolist()


def test_report_table_of_predictions_and_tracked_runs_are_there(
    store: Store, compared: tuple[RunSummary, list[Cell]]
) -> None:
    (record,) = runs(store)
    assert all(method in (record.folder / "report.html").read_text(encoding="utf-8") for method in METHODS)
    table = record.read("test-predictions-net-blobs.json")
    assert table["columns"] == ["row", "text", "label", *METHODS]
    first = blobs(45, 45)[0]
    assert table["data"][0][:3] == [0, f"{first['x']} / {first['y']}", first["label"]]
    found = open_run(store=store.root)
    assert found.states("net", "blobs", "test", "layer_00").shape == (45, 2)
    assert found.labels("net", "blobs", "train").tolist() == [0, 1, 2] * 20


def test_a_sweep_is_over_its_features_too(base: Path, store: Store, compared: Any) -> None:
    summary = done_of(opened(base, store, SWEEP))
    assert summary.failures == []
    assert all(result.mean > 0.8 for result, _ in summary.results)


def test_it_is_valid_and_a_row_that_it_cannot_read_is_named(base: Path, tmp_path: Path) -> None:
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "workflow.yaml").write_text(json.dumps(WORKFLOW), encoding="utf-8")
    found = validate(tmp_path / "workflow.yaml", None)
    assert found.problems == []
    assert found.tasks[0].words[0].tokens == {label: [word] for label, word in TASK["words"].items()}
    (tmp_path / "test.jsonl").write_text('{"x": "wide", "y": 1.0, "label": "cold"}\n', encoding="utf-8")
    (problem,) = validate(tmp_path / "workflow.yaml", None).problems
    assert problem.endswith("test.jsonl: row 1: column 'x' is 'wide'; expected a number")


REFUSED = {
    "icl": "method 'icl' needs a language model that reads prompts, and net is none",
    "lora": "method 'lora' needs a language model that reads prompts, and net is none",
    "embedding": "method 'embedding' needs embedding, which net does not have",
    "contextual": "method 'contextual' needs content_free, which net does not have",
}


@pytest.mark.parametrize("method", REFUSED)
def test_a_method_that_needs_more_is_refused_at_once(method: str, base: Path, store: Store) -> None:
    document = {**WORKFLOW, "methods": ["knn", ENTRIES.get(method, method)]}
    with pytest.raises(ConfigError, match=REFUSED[method]) as told:
        opened(base, store, document)
    assert exit_code_of(told.value) == 2
    assert "workflow.yaml" in str(told.value)
    assert REFUSED[method] in "\n".join(validate(base / "workflow.yaml", None).problems)


def test_without_a_linear_head_there_are_the_methods_on_training_states_alone(
    base: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, of_the_head = Net.materials, ("head", "basis", "spectrum", "verbalizer")
    monkeypatch.setattr(Numbers, "gives", frozenset({"train", "unlabelled"}))
    monkeypatch.setattr(
        Net,
        "materials",
        lambda *given: {role: step for role, step in whole(*given).items() if role not in of_the_head},
    )
    headless = ["linear-probe", "centroid", "knn"]
    unprepared = {"method": "semantic-prior", "settings": {"targets": "none"}}
    session = opened(base, store, {**WORKFLOW, "methods": [*headless, unprepared]})
    assert not {step.name for step in in_order(session.job.targets)} & set(of_the_head)
    for method in [name for name in METHODS if name not in headless]:
        with pytest.raises(
            ConfigError, match=rf"method '{method}' needs (basis|head|spectrum), which net does not have"
        ):
            opened(base, store, {**WORKFLOW, "methods": ["knn", method]})


def test_tokens_are_no_matter_of_numbers(base: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"encoding\.max_tokens: net reads no tokens") as told:
        opened(base, store, {**WORKFLOW, "encoding": {"max_tokens": 8, "layers": ["layer_07", "all"]}})
    assert "net has no layer 'layer_07'; it has layer_00 to layer_00, and head" in str(told.value)


def test_a_language_model_needs_a_template(base: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match=r"task 'blobs' has no template, which a language model needs, such as: "):
        opened(base, store, {**WORKFLOW, "models": ["reference"]})


def test_a_fit_of_it_is_no_served_model(compared: tuple[RunSummary, list[Cell]], store: Store) -> None:
    cell = next(cell for cell in compared[1] if cell.method == "calibration")
    assert cell.extractor.served(cell.fits[0], store) is None
    assert {step.name for step in in_order([cell.score])} == {
        "numbers", "labels", "encode", "head", "spectrum", "verbalizer", "search", "fit", "score",
    }  # fmt: skip
