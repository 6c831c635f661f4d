"""VocabSem from Python: workflows as mappings, results as tables, stored states in three forms."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from orchestration.errors import StoreError
from orchestration.graph import Step
from orchestration.tracking.tracker import TrackingError
from tests import tiny
from tests.workflows.films import films, write_films
from workflows import api
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_states

WORKFLOW: dict[str, Any] = {
    "workflow": "compare",
    "models": ["model"],
    "tasks": ("films.yaml",),
    "methods": ["affinity", {"method": "knn", "settings": {"k": 1}}],
    "seeds": [0],
    "search": {"trials": 0},
    "encoding": {"layers": ["head", "layer_01"]},
}
NAMES = ("model", "films", "test")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a task and its rows."""
    folder = tmp_path_factory.mktemp("workspace")
    tiny.save(folder / "model", tiny.gpt2())
    write_films(folder, films(24), films(20))
    return folder


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    monkeypatch.setattr("workflows.session.fill", away)


@pytest.fixture(scope="module")
def done(base: Path) -> api.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workflows.session.fill", lambda *_: "")
        return api.run(WORKFLOW, base=base, store=base / "store", executor="inline")


def test_a_mapping_and_a_file_are_one_run(base: Path, done: api.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert (done.counts["failed"], done.failures) == (0, ())
    file = base / "workflow.yaml"
    file.write_text(yaml.safe_dump({**WORKFLOW, "tasks": ["films.yaml"]}))
    again = api.run(str(file), store=str(base / "store"), executor="inline", progress=False)
    assert again.run_id == done.run_id
    assert (again.counts["ran"], again.counts["cached"]) == (0, done.counts["ran"])
    kept = yaml.safe_load((done.record.folder / "workflow.yaml").read_text())
    assert kept == {**WORKFLOW, "tasks": ["films.yaml"]}
    assert "ran " not in capsys.readouterr().err


def known(run: api.Run) -> dict[str, Any]:
    """What a run came to, seconds and labels of steps apart."""
    tracked, table = run.record.read("tracked.json"), run.table()
    return {
        "run": (run.run_id, run.counts, run.notes),
        "table": table[[name for name in table if not name.endswith(("seconds", "bytes"))]].to_json(),
        "charged": (table[["encode_seconds", "basis_seconds", "fit_seconds"]] > 0).to_dict("list"),
        "states": run.states(*NAMES).tolist(),
        "labels": run.labels(*NAMES).tolist(),
        "predictions": run.record.read("test-predictions-model-films.json"),
        "tracked": [[one["name"], one["params"], one["data"]] for one in (tracked["parent"], *tracked["children"])],
    }


def test_labels_of_steps_are_for_people_alone(
    base: Path, done: api.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, number = Step.__init__, count()

    def renamed(self: Step, *args: Any, **fields: Any) -> None:
        made(self, *args, **fields)
        object.__setattr__(self, "label", f"step {next(number)}")

    monkeypatch.setattr(Step, "__init__", renamed)
    assert set(api.plan(WORKFLOW, base=base, store=base / "store")["state"]) == {"cached"}
    again = api.run(WORKFLOW, base=base, store=tmp_path, executor="inline", progress=False)
    assert {step["label"].split()[0] for step in again.record.read("graph.json")["steps"]} == {"step"}
    found, expected = known(again), known(done)
    assert found == expected
    assert found["tracked"][0][2], "data sets are among what is compared"


def test_a_plan_is_a_table_of_steps(base: Path, done: api.Run, tmp_path: Path) -> None:
    assert set(api.plan(WORKFLOW, base=base, store=base / "store")["state"]) == {"cached"}
    fresh = api.plan(WORKFLOW, base=base, store=tmp_path)
    assert list(fresh.columns) == ["step", "key", "state", "why"]
    assert set(fresh["state"]) == {"run"}
    assert len(fresh) == done.counts["ran"]


def test_a_relative_path_starts_from_the_current_folder(
    base: Path, done: api.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base)
    assert set(api.plan({**WORKFLOW, "models": [Path("model")]}, store="store")["state"]) == {"cached"}


def test_the_table_has_a_row_per_result(base: Path, done: api.Run) -> None:
    table = done.table()
    assert table["method"].tolist() == ["affinity", "knn"]
    assert table[["model", "task"]].drop_duplicates().to_numpy().tolist() == [["model", "films"]]
    for column in ("mean", "low", "high", "seconds", "trained_weights"):
        assert table[column].notna().all()
    assert table["versus_reference"].tolist()[1] == "affinity"
    assert api.open_run("latest", store=base / "store").table().equals(table)
    assert api.open_run(done.run_id[:6], store=base / "store").run_id == done.run_id


@pytest.mark.parametrize("layer", ["head", "layer_01"])
def test_states_come_in_three_forms_with_their_labels(done: api.Run, layer: str) -> None:
    expected = read_states(done._encoded(*NAMES), layer)
    labels = done.labels("model", "films", "test")
    assert labels.tolist() == [0, 1] * 10
    tensor = done.states("model", "films", "test", layer)
    assert (tensor.dtype, tensor.shape) == (torch.float16, (20, tiny.WIDTH))
    assert torch.equal(tensor.float(), expected)
    array = done.states("model", "films", "test", layer, form="numpy")
    np.testing.assert_array_equal(array.astype(np.float32), expected.numpy())
    dataset = done.states("model", "films", "test", layer, form="dataset")
    assert dataset.column_names == ["row_id", "label", layer]
    assert dataset.features["label"].names == ["bad", "good"]
    assert dataset["label"][:] == labels.tolist()
    assert torch.equal(dataset.with_format("torch")[:][layer].float(), expected)


def test_writing_to_states_leaves_the_store_as_it_is(done: api.Run) -> None:
    before = done.states("model", "films", "test").clone()
    done.states("model", "films", "test")[:] = 0
    done.states("model", "films", "test", form="numpy")[:] = 0
    assert torch.equal(done.states("model", "films", "test"), before)


def test_states_that_are_not_there_are_told(base: Path, done: api.Run) -> None:
    with pytest.raises(ConfigError, match=r"has no states of modle, films, test; did you mean 'model films test'"):
        done.states("modle", "films", "test")
    with pytest.raises(ConfigError, match="layer: found 'layer_02'; stored are head, layer_01"):
        done.states("model", "films", "test", "layer_02")
    with pytest.raises(ConfigError, match="form: found 'jax'; expected one of torch"):
        done.states("model", "films", "test", form="jax")  # type: ignore[call-overload]
    folder = done._encoded(*NAMES).folder
    folder.rename(folder.with_suffix(".gone"))
    try:
        with pytest.raises(StoreError, match=r"states of model, films, test of run .* are not in"):
            done.states("model", "films", "test")
    finally:
        folder.with_suffix(".gone").rename(folder)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt field": ({"metods": []}, "^unknown field 'metods'; did you mean 'methods'?"),
    "a misspelt kind": ({"workflow": "compar"}, "^workflow: found 'compar'; did you mean 'compare'?"),
    "a wrong type": ({"seeds": ["a"]}, "^seeds.0: found 'a'"),
    "an unknown task": ({"tasks": ["film.yaml"]}, "film.yaml: no such file"),
    "an unknown catalog name": ({"tasks": ["starter-topic"]}, "^tasks.0: unknown task 'starter-topic'"),
    "an object": ({"seeds": [3j]}, "^workflow: found complex 3j; expected what YAML can hold"),
}


@pytest.mark.parametrize(("changes", "told"), WRONG.values(), ids=WRONG)
def test_a_mistake_in_a_mapping_names_its_field(base: Path, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        api.plan({**WORKFLOW, **changes}, base=base, store=tmp_path)


def test_mistaken_arguments_are_told(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"executor: found 'spark'; expected 'ray' or 'inline'"):
        api.run(WORKFLOW, base=base, store=tmp_path, executor="spark")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"data_dir: .*: no such folder"):
        api.plan(WORKFLOW, base=base, store=tmp_path, data_dir="nowhere")
    with pytest.raises(ConfigError, match="base: is for a mapping"):
        api.plan(base / "workflow.yaml", base=base, store=tmp_path)
    with pytest.raises(ConfigError, match=r"workflow: holds `workflow: compare`; expected `workflow: sweep`\."):
        api.sweep(WORKFLOW, base=base, store=tmp_path)
    with pytest.raises(StoreError, match="no store; run a workflow first"):
        api.open_run(store=tmp_path / "nowhere")


def test_a_step_that_fails_is_named_and_raises_nothing(base: Path, tmp_path: Path) -> None:
    (base / "broken.py").write_text(
        "from vocabsem import Method\n\n\nclass Broken(Method):\n"
        "    name = 'broken'\n    needs = frozenset({'train'})\n\n"
        "    def fit(self, settings, materials, seed):\n        raise ValueError('it broke')\n\n"
        "    def predict(self, settings, fitted, states, materials):\n        return states\n"
    )
    run = api.run({**WORKFLOW, "methods": ["affinity", "broken.py"]}, base=base, store=tmp_path, executor="inline")
    ((failure),) = run.failures
    assert failure.step == "fit model films broken seed 0"
    assert "it broke" in failure.error
    assert run.counts["failed"] == 4  # with its score and its tests
    assert run.table()["method"].tolist() == ["affinity"]


def test_the_best_of_a_sweep_is_a_workflow(base: Path, done: api.Run) -> None:
    sweep: Any = {"workflow": "sweep", "name": "k", "model": "model", "task": "films.yaml", "method": "knn"}
    shared: Any = {"base": base, "store": base / "store", "executor": "inline"}
    sweep |= {"search": {"trials": 2}, "encoding": WORKFLOW["encoding"]}
    found = api.sweep(sweep, **shared)
    assert not found.failures
    tested = api.run(found.best(), **shared)
    assert tested.table()["method"].tolist()[0] == "knn-defaults"
    with pytest.raises(ConfigError, match="is no finished sweep"):
        done.best()


def test_a_model_is_loaded_by_the_names_of_a_workflow(base: Path) -> None:
    model, tokenizer = api.load_model("model", base=base, device="cpu")
    assert model.get_output_embeddings().weight.shape[1] == tiny.WIDTH
    assert tokenizer.is_fast
    with pytest.raises(ConfigError, match="unknown model 'modle'"):
        api.load_model("modle", base=base)
