"""A layer study of a tiny model: its numbers are those of the methods alone and of plain loops; what it refuses."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import adjusted_rand_score, f1_score
from sklearn.neighbors import KNeighborsClassifier

from orchestration.execution.scheduler import InlineEngine, Outcome, run_plan
from orchestration.execution.work import work_of
from orchestration.runs.plan import make_plan
from orchestration.runs.record import RunRecord, open_run
from orchestration.store.artifacts import Store, open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from tests import tiny
from tests.workflows.films import films, write_films
from vocabsem_core.calibration.modules import residual
from vocabsem_core.features.checkpoints import load_model
from vocabsem_core.features.heads import head_of
from vocabsem_core.lens.trace import Tail
from workflows.compare.graph import comparison
from workflows.config.compare import CompareConfig
from workflows.config.layer_study import LayersConfig
from workflows.errors import ConfigError
from workflows.layers.results import LayerResults, columns
from workflows.layers.workflow import LAYERS, LAYERS_FILE, LayerStudy
from workflows.methods.inputs.states import read_states
from workflows.methods.registry import METHODS
from workflows.steps.layers import spaces as spaces_of_layers
from workflows.steps.layers.readings import LayerWorker
from workflows.steps.layers.spaces import Space, spaces
from workflows.steps.layers.stored import readings_of

GIVEN: dict[str, Any] = {
    "workflow": "layers",
    "models": ["model"],
    "tasks": ["films.yaml"],
    "bases": ["head", "embedding", "interpolated", "interpolated-raw", "affine"],
    "neighbours": [1, 3],
    "steering": {"rows": 3, "length": 4.0},
    "encoding": {"store_dtype": "float32"},
}
QUIET: Any = lambda *_: None  # noqa: E731
Made = Callable[..., LayerStudy]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    tiny.save(folder / "model", tiny.gpt2())
    tiny.save(folder / "shared", tiny.albert(), safe_serialization=True)
    write_films(folder, films(40), films(20))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def made(base: Path, store: Store) -> Made:
    def make(**changes: Any) -> LayerStudy:
        config = LayersConfig.model_validate({**GIVEN, **changes})
        return LAYERS.job(config, base, None, FingerprintCache(store.root / "facts.json"), store)  # type: ignore[return-value]

    return make


@pytest.fixture(scope="module")
def done(made: Made, store: Store) -> LayerResults:
    study = made()
    outcomes = run_plan(make_plan(study.targets, store), lambda: InlineEngine(store, QUIET), QUIET)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}, outcomes
    (found,) = study.found(store, pytest.fail)
    return found


def test_there_is_a_record_for_every_layer_and_basis_and_the_last_is_the_heads(done: LayerResults) -> None:
    layers = ["layer_00", "layer_01", "layer_02"]
    assert [row["layer"] for row in done.of("head")] == [*layers, "head"]
    for basis in ("embedding", "interpolated", "interpolated-raw", "affine"):
        assert [row["layer"] for row in done.of(basis)] == layers
    assert done.layers[-1]["layer"] == "head"
    assert [row["settled"] for row in done.of("head")][-1] == 1.0


def test_at_the_head_the_methods_are_those_of_a_comparison(
    done: LayerResults, made: Made, base: Path, store: Store
) -> None:
    names = ["affinity", "affinity-centred", "semantic-prior", "linear-probe", "calibration"]
    config = CompareConfig.model_validate(
        {
            **{name: GIVEN[name] for name in ("models", "tasks")},
            "workflow": "compare",
            "methods": names,
            "search": {"trials": 0},
            "seeds": [0],
            "encoding": {"store_dtype": "float32", "layers": ["all"]},
        }
    )
    cells = comparison(config, base, None, FingerprintCache(store.root / "facts.json"))
    run_plan(make_plan([cell.score for cell in cells], store), lambda: InlineEngine(store, QUIET), QUIET)
    ours = {result.method: result for result, _ in made().results(store, pytest.fail)}
    for cell in cells:
        theirs = store.need(cell.score).json("score.json")["scores"][cell.metric]
        assert ours[cell.method].mean == pytest.approx(theirs["mean"])
        assert ours[cell.method].low == pytest.approx(theirs["low"], abs=0.02)


def test_scores_of_a_middle_layer_are_those_of_its_predictions(done: LayerResults, made: Made, store: Store) -> None:
    found = _predictions(made(), store)
    labels = np.arange(20) % 2  # bad and good in turn
    for row in done.layers:
        for name, score in row["scores"].items():
            predicted = found[f"{row['layer']}/{row['basis']}/{name}"]
            expected = (
                (predicted == labels).mean()
                if done.metric == "accuracy"
                else f1_score(labels, predicted, average="macro")
            )
            assert score["mean"] == pytest.approx(expected)
            assert score["low"] <= score["mean"] <= score["high"]
        clusters = found[f"{row['layer']}/{row['basis']}/clusters"]
        assert row["rand_index"] == pytest.approx(adjusted_rand_score(labels, clusters))


def _predictions(study: LayerStudy, store: Store) -> dict[str, np.ndarray]:
    return {
        f"{one.record['layer']}/{one.record['basis']}/{name}": value.numpy()
        for one in readings_of(store.need(study.parts[0].readings))
        for name, value in one.predictions.items()
    }


def test_the_head_side_of_a_layer_is_its_states_through_the_final_norm(
    done: LayerResults, made: Made, base: Path, store: Store
) -> None:
    work = work_of(made().parts[0].readings, store)
    model = load_model(base / "model", "float32", "cpu")
    states = read_states(work.inputs["test"], "layer_01")
    with torch.no_grad():
        seen = model.transformer.ln_f(states)
    weight = head_of(model).weight[: work.identity["kept_rows"]].double().numpy()
    basis = np.linalg.pinv(weight.T)
    (first,), (second,) = work.inputs["verbalizer"].json("verbalizer.json")["tokens"]
    rows = basis[[first, second]]
    cosines = [[float(h @ s / np.linalg.norm(h) / np.linalg.norm(s)) for s in rows] for h in seen.double().numpy()]
    found = _predictions(made(), store)
    assert found["layer_01/head/affinity"].tolist() == np.argmax(cosines, axis=1).tolist()
    logits = seen[:128].double().numpy() @ weight.T
    ranks = [1 + sum(value > max(row[first], row[second]) for value in row) for row in logits]
    (record,) = [row for row in done.of("head") if row["layer"] == "layer_01"]
    assert record["label_rank"] == np.median(ranks)
    torch.testing.assert_close(Tail(model)(states), seen)


def test_neighbours_after_calibration_are_those_of_calibrated_states(made: Made, store: Store) -> None:
    """By scikit-learn, on states that are moved by the formula (paper, table 9)."""
    work = work_of(made().parts[0].readings, store)
    (reading,) = [
        one
        for one in readings_of(store.need(made().parts[0].readings))
        if (one.record["layer"], one.record["basis"]) == ("head", "head")
    ]
    train, test = (read_states(work.inputs[split], "head") for split in ("train", "test"))
    moved = [residual(states - reading.fitted["centre"], reading.fitted).numpy() for states in (train, test)]
    labels = np.arange(40) % 2
    expected = KNeighborsClassifier(1, metric="cosine").fit(moved[0], labels).predict(moved[1])
    assert reading.predictions["knn-1-calibrated"].tolist() == expected.tolist()


def test_calibrators_of_every_layer_are_kept(made: Made, store: Store) -> None:
    readings = readings_of(store.need(made().parts[0].readings))
    found = {one.record["layer"]: one.fitted for one in readings if one.record["basis"] == "head"}
    assert set(found) == {"layer_00", "layer_01", "layer_02", "head"}
    assert found["layer_01"]["centre"].shape == (tiny.WIDTH,)


def test_steering_counts_rows_and_a_long_push_arrives(done: LayerResults) -> None:
    assert {row["basis"] for row in done.steering} == {"head", "embedding", "interpolated", "interpolated-raw"}
    assert all(row["rows"] == 3 and row["to_target"] <= row["changed"] <= 3 for row in done.steering)
    (last,) = [row for row in done.steering if (row["layer"], row["basis"]) == ("layer_02", "head")]
    assert last["to_target"] == 3  # beyond the last block nothing can undo it


def test_it_is_recorded_reported_and_tracked(done: LayerResults, made: Made, store: Store, tmp_path: Path) -> None:
    study = made()
    record = open_run(store, study.targets, "workflow: layers\n")
    results = study.results(store, pytest.fail)
    study.add_to_record(record, store, results, pytest.fail)
    page = (record.folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "layer_01" in page
    assert sorted(path.name for path in record.folder.glob("layers-*.svg"))[0] == "layers-model-films-affine.svg"
    parent, children = study.tracked(record, store, results, "FINISHED", pytest.fail)
    assert children == ()
    assert parent.metrics["model/films/affinity"] == done.layers[-1]["scores"]["affinity"]["mean"]
    points = parent.series["by layer/model/films/head/recomposed"]
    assert [step for step, _ in points] == [0, 1, 2, 3]
    assert {path.suffix for path in parent.files} == {".yaml", ".html", ".svg"}
    again = [LayerResults(**one) for one in record.read(LAYERS_FILE)]
    assert [one.name for one in columns(again[0])] == [one.name for one in columns(done)]
    for form in ("html", "markdown"):
        _report(record, store, form, tmp_path / form)
        name = {"html": "report.html", "markdown": "report.md"}[form]
        assert (tmp_path / form).read_text() == (record.folder / name).read_text()
    with pytest.raises(ConfigError, match="a layer study has no latex report; it has html, markdown"):
        _report(record, store, "latex", tmp_path / "latex")


def _report(record: RunRecord, store: Store, form: str, place: Path) -> None:
    assert LAYERS.report is not None
    LAYERS.report(record, store, form, place)


def test_notes_and_the_document_hold_every_layer(done: LayerResults, made: Made, store: Store) -> None:
    lines = made().notes(store, ran=False)
    assert sum(line.startswith("layer_01") for line in lines) == 5 + 4  # by each basis, and steered by each but affine
    (found,) = made().document(store)["layers"]
    assert len(found["layers"]) == 4 + 4 * 3
    assert found["task"] == "films"


def test_a_layer_of_which_all_states_are_one_says_why_it_has_no_prior(tmp_path: Path) -> None:
    """As with rotary positions, where every prompt ends in the same token."""
    tiny.save(tmp_path / "model", tiny.llama())
    write_films(tmp_path, films(20), films(4))
    store = open_store(tmp_path / "store")
    config = LayersConfig.model_validate({**GIVEN, "bases": ["head"], "layers": ["layer_00"], "steering": {"rows": 0}})
    study = LAYERS.job(config, tmp_path, None, FingerprintCache(store.root / "facts.json"), store)
    run_plan(make_plan(study.targets, store), lambda: InlineEngine(store, QUIET), QUIET)
    first, _ = readings_of(store.need(study.parts[0].readings))  # type: ignore[attr-defined]
    assert "no logits that differ" in first.record["refused"]["semantic-prior"]


def test_no_more_than_two_layers_states_are_in_memory(
    done: LayerResults, made: Made, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer's own and the last block's, where states as they are stored and as a space holds them both count."""
    held: list[tuple[str, weakref.ref[torch.Tensor]]] = []
    most = [0]
    reading = [""]

    def hold(layer: str, *tensors: torch.Tensor) -> None:
        held.extend((layer, weakref.ref(one)) for one in tensors)
        most[0] = max(most[0], len({name for name, one in held if one() is not None}))

    def read(artifact: Any, layer: str) -> torch.Tensor:
        states = read_states(artifact, layer)
        hold(layer, states)
        return states

    def seen(layer: str, *rest: Any) -> Iterator[Space]:
        reading[0] = layer
        yield from spaces(layer, *rest)

    def space(bases: Any, train: torch.Tensor, test: torch.Tensor, through_head: bool) -> Space:
        hold(reading[0], train, test)
        return Space(bases, train, test, through_head)

    monkeypatch.setattr(spaces_of_layers, "read_states", read)
    monkeypatch.setattr(spaces_of_layers, "spaces", seen)
    monkeypatch.setattr(spaces_of_layers, "Space", space)
    work = work_of(made(bases=["head", "affine"]).parts[0].readings, store)
    nowhere: Any = _Nowhere()
    worker = LayerWorker(made(bases=["head", "affine"]).parts[0].readings.setup)
    for shard in range(worker.shard_count(work)):
        worker.fill(replace(work, out=nowhere, scratch=tmp_path), shard)
    assert {layer for layer, _ in held} == {"layer_00", "layer_01", "layer_02", "head"}
    assert most[0] == 2


class _Nowhere:
    """In the place of an artifact's writer."""

    def write_shard(self, *told: Any) -> None:
        pass


def test_rows_of_the_embeddings_side_need_the_blocks_width(tmp_path: Path) -> None:
    """A model whose embedding and head are half as wide as its blocks."""
    tiny.save(tmp_path / "model", tiny.opt())
    write_films(tmp_path, films(20), films(4))
    store = open_store(tmp_path / "store")

    def readings(*bases: str) -> Outcome:
        config = LayersConfig.model_validate({**GIVEN, "bases": list(bases), "steering": {"rows": 0}})
        study = LAYERS.job(config, tmp_path, None, FingerprintCache(store.root / "facts.json"), store)
        outcomes = run_plan(make_plan(study.targets, store), lambda: InlineEngine(store, QUIET), QUIET)
        return outcomes[study.parts[0].readings.key]  # type: ignore[attr-defined]

    told = "the blocks' states have 32 dimensions, the input embedding 16 and the head's input 16; keep of `bases` head"
    assert told in str(readings("head", "embedding").error)
    assert readings("head", "affine").state == "ran"


@pytest.mark.parametrize("name", ["linear-probe", "knn", "semantic-prior", "calibration"])
def test_a_default_of_a_method_that_changes_is_another_reading(
    made: Made, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = made().parts[0].readings
    whole = METHODS[name].Settings().model_dump(mode="json")
    assert before.identity["methods"][name] == {"version": METHODS[name].version, "settings": whole}
    setting = next(setting for setting, value in whole.items() if isinstance(value, int | float))
    changed = METHODS[name].Settings.model_validate({setting: whole[setting] * 2})

    class Changed(METHODS[name].Settings):  # type: ignore[misc, name-defined]
        def __init__(self, **given: Any) -> None:
            super().__init__(**{setting: getattr(changed, setting), **given})

    monkeypatch.setattr(type(METHODS[name]), "Settings", Changed)
    after = made().parts[0].readings
    assert after.identity["methods"][name]["settings"] == changed.model_dump(mode="json")
    assert after.key != before.key


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"layers": ["layer_01"], "encoding": {"layers": ["head"]}},
            "'layer_01' is not stored; add it to encoding.layers",
        ),
        ({"layers": ["layer_01"], "encoding": {"layers": ["layer_01"]}}, "layer 'head' is not stored"),
        ({"bases": ["embedding"]}, "calibrated names 'head', which is not in `bases`"),
        ({"bases": ["head", "head"]}, "listed twice"),
        ({"bases": ["rows"]}, "Input should be 'head', 'embedding'"),
        ({"neighbours": [0]}, "greater than or equal to 1"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        LayersConfig.model_validate({**GIVEN, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"layers": ["head"], "encoding": {"layers": ["head", "layer_09"]}},
            "has no layer 'layer_09'; it has layer_00",
        ),
        (
            {"layers": ["head"], "encoding": {"layers": ["head"]}},
            "which is not stored; add layer_02 to encoding.layers",
        ),
        ({"steering": {"layers": ["layer_00"]}}, "no block's output 'layer_00'; it has layer_01 to layer_02"),
        ({"models": ["shared"]}, "its blocks cannot be told apart"),
    ],
)
def test_what_the_model_does_not_have_is_refused(made: Made, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made(**changes)
