"""The sweep workflow: what a search is known by, and what comes of it on a tiny model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.neighbors import KNeighborsClassifier

from orchestration.execution.work import work_of
from orchestration.runs.record import RunRecord
from orchestration.store.artifacts import open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from orchestration.store.scratch import scratch_folder
from tests.workflows.sweeps import (
    BEST,
    DEFAULT,
    QUIET,
    SWEPT,
    Done,
    Made,
    StepProgress,
    artifact_json,
    config,
    retold,
    run,
)
from workflows.config.compare import CompareConfig
from workflows.methods.registry import METHODS
from workflows.steps.fit import materials_of
from workflows.steps.sweep import CONFIRMED, RECORDS
from workflows.sweep.graph import sweep


def test_where_and_how_many_at_once_is_no_part_of_a_search(made: Made) -> None:
    elsewhere = made(execution={"executor": "ray", "concurrent": 7, "pack": 3, "cores": 2})
    assert elsewhere.search.key == made().search.key
    assert made(search={"algorithm": "grid", "seed": 1}).search.key != made().search.key
    assert made(confirm={"best": 1}).search.key == made().search.key
    assert made(confirm={"best": 1}).confirm.key != made().confirm.key


@pytest.mark.parametrize(
    ("method", "asked", "gpus"),
    [("knn", None, 0.0), ("knn", 0.5, 0.5), ("calibration", None, None), ("calibration", 0, 0)],
)
def test_workers_ask_for_a_gpu_where_the_method_uses_it_or_the_user_says_so(
    made: Made, method: str, asked: float | None, gpus: float | None
) -> None:
    assert made(method=method, space=None, search={"trials": 3}, execution={"gpus": asked}).search.local["gpus"] == gpus


def test_a_configuration_that_stands_twice_is_tried_once(made: Made) -> None:
    whole = made(search={"trials": 64}, space={"k": {"choice": [16]}})  # the defaults are all there is
    assert whole.search.identity["listed"] == [{"k": 16, "distance": "cosine"}]
    assert len(made().search.identity["listed"]) == 4


def test_what_a_search_is_known_by_is_what_decides_its_result(made: Made) -> None:
    grid, optuna = made().search.identity, made(search={"algorithm": "optuna", "trials": 9}).search.identity
    assert (grid["optuna"], grid["stopping"], grid["time_limit"]) == (None, None, None)
    assert optuna["listed"] is None
    assert optuna["optuna"] == {"space": SWEPT["space"], "fixed": {"k": 16, "distance": "cosine"}, "trials": 9}
    drawn = {"space": {"k": {"integer": [1, 500]}}}
    random, turned = (made(search={"seed": seed}, **drawn).search.identity["listed"] for seed in (0, 1))
    assert len(random) == 64
    assert random != turned


def test_a_default_that_changes_is_another_search_and_another_confirmation(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys() -> list[str]:
        sweep = made(method="calibration", space={"rank": {"choice": [2, 4]}}, search={"algorithm": "optuna"})
        return [sweep.search.key, sweep.confirm.key]

    before = keys()
    assert keys() == before

    class Changed(METHODS["calibration"].Settings):  # type: ignore[misc, name-defined]
        learning_rate: float = 0.5

    monkeypatch.setattr(type(METHODS["calibration"]), "Settings", Changed)
    assert not set(keys()) & set(before)


def test_a_default_that_changes_is_another_confirmation_where_the_list_does_not_hold_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid over a setting: the search is the same whatever its default, the confirmation fits the default too."""
    before = made()

    class Changed(METHODS["knn"].Settings):  # type: ignore[misc, name-defined]
        k: int = 7

    monkeypatch.setattr(type(METHODS["knn"]), "Settings", Changed)
    after = made()
    assert after.search.key == before.search.key
    assert after.confirm.identity["fixed"] == {"k": 7, "distance": "cosine"}
    assert after.confirm.key != before.confirm.key


RATES = {"method": "calibration", "space": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"grace": 3}, {}, True),  # nothing is stopped
        ({"trials": 64}, {}, True),  # written out
        ({"algorithm": "optuna", "trials": 64}, {"algorithm": "optuna"}, True),
        ({"algorithm": "optuna", "grace": 3}, {"algorithm": "optuna"}, True),
        ({"stopping": "asha", "grace": 3}, {"stopping": "asha"}, False),
        ({"stopping": "asha", "grace": 5}, {"stopping": "asha"}, True),
        ({"stopping": "asha"}, {"stopping": "median"}, False),
        ({"stopping": "asha"}, {}, False),
        ({"time_limit": 60}, {}, False),
        ({"trials": 63}, {}, False),
        ({"algorithm": "optuna", "trials": 63}, {"algorithm": "optuna"}, False),
        ({"algorithm": "optuna"}, {}, False),
        ({"algorithm": "optuna", "seed": 1}, {"algorithm": "optuna"}, False),
    ],
)
def test_only_what_may_change_the_result_changes_the_key(
    made: Made, one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    first, second = (made(search=given, **RATES).search.key for given in (one, other))
    assert (first == second) == same


def test_a_whole_grid_written_in_another_order_is_the_same_search(made: Made) -> None:
    assert made(space=dict(reversed(SWEPT["space"].items()))).search.key == made().search.key


def test_a_sweep_tries_its_whole_grid_in_order_and_leaves_no_scratch(done: Done) -> None:
    assert [one["settings"] for one in done.records] == [
        {"k": 3, "distance": "euclidean"},
        {"k": 3, "distance": "cosine"},
    ]
    assert {(one["ended"], one["seed"]) for one in done.records} == {("finished", 0)}
    assert not scratch_folder(done.store.root, done.sweep.search.folder).exists()
    assert artifact_json(done.store, done.sweep.search, RECORDS) == done.records


def test_a_configurations_score_is_scikit_learns_on_the_validation_rows(done: Done) -> None:
    materials = materials_of(work_of(done.sweep.search, done.store))
    train, held = materials.train, materials.validation
    oracle = KNeighborsClassifier(n_neighbors=3, algorithm="brute").fit(train.states.numpy(), train.labels.numpy())
    expected = (oracle.predict(held.states.numpy()) == held.labels.numpy()).mean()
    assert done.records[0]["validation"] == pytest.approx(expected)


def test_results_are_the_candidates_on_validation_rows(done: Done) -> None:
    results = done.sweep.results(done.store, QUIET)
    assert [(result.mean, result.rows) for result, _ in results] == [
        (candidate["mean"], "validation") for candidate in done.confirmed["candidates"]
    ]
    assert results[0][0].n_test == done.confirmed["rows"] == 32  # four fifths
    assert results[0][0].seeds == [1, 2, 3, 4]
    assert [result.sd_seeds for result, _ in results] == [one["sd"] for one in done.confirmed["candidates"]]


def test_candidates_of_a_time_that_failed_are_those_of_the_time_before(done: Done) -> None:
    before = done.sweep.results(done.store, QUIET)
    assert done.sweep.with_earlier([], before) == before
    assert done.sweep.with_earlier(before[:1], before) == before[:1]


def test_best_yaml_has_the_defaults_alone_where_they_win(done: Done) -> None:
    found = yaml.safe_load(done.sweep.best_yaml(retold(done, candidates=[DEFAULT, BEST])))
    assert [(method["name"], method["settings"]) for method in found["methods"]] == [("knn-defaults", {"k": 3})]


def test_best_yaml_goes_where_the_sweep_went(made: Made, done: Done) -> None:
    where = {"store": "kept", "experiment": "films", "execution": {"address": "auto"}}
    found = yaml.safe_load(made(**where).best_yaml(retold(done)))
    assert (found["store"], found["experiment"], found["execution"]) == ("kept", "films", {"address": "auto"})
    CompareConfig.model_validate(found)
    assert not {"store", "experiment", "execution"} & yaml.safe_load(made().best_yaml(retold(done))).keys()


def test_best_yaml_is_a_comparison_of_the_winner_and_the_defaults(done: Done) -> None:
    text = done.sweep.best_yaml(retold(done, candidates=[BEST, DEFAULT]))
    found = CompareConfig.model_validate(yaml.safe_load(text))
    assert text.startswith("# The best of sweep mine (")
    assert (found.models, found.tasks, found.search.trials) == (("model",), ("films.yaml",), 0)
    assert [method.label for method in found.methods] == ["knn-defaults", "knn-best"]
    assert [method.settings for method in found.methods] == [
        {"k": 3},
        {"k": 3, "distance": "euclidean"},
    ]
    assert found.seeds == (1, 2, 3, 4)
    assert found.encoding.store_dtype == "float32"


OWN = """
from workflows.methods.knn import Knn

class Near(Knn):
    name = "near by"
"""


def test_a_users_own_method_is_called_by_its_name_and_its_best_can_be_compared(
    made: Made, done: Done, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    swept = made(method=os.path.relpath(tmp_path / "mine.py", done.sweep.base))
    store = retold(done, candidates=[{**done.confirmed["candidates"][0], **BEST}])
    assert [result.method for result, _ in swept.results(store, QUIET)] == ["near by: best 1"]
    parent, (child, *_) = swept.tracked(
        RunRecord("r1", tmp_path), store, swept.results(store, QUIET), "FINISHED", QUIET
    )
    assert (parent.params["method"], child.tags["vocabsem.method"]) == ("near by", "near by")
    found = CompareConfig.model_validate(yaml.safe_load(swept.best_yaml(store)))
    assert [method.label for method in found.methods] == ["near-by-defaults", "near-by-best"]
    (reference,) = {method.method for method in found.methods}
    assert reference == swept.config.method  # as the user wrote it
    assert (swept.base / reference).resolve() == tmp_path / "mine.py"
    assert "# Its paths are relative to the folder of the sweep's file.\n" in swept.best_yaml(store)


def test_mlflow_has_a_run_a_configuration_with_the_best_on_top_and_one_table_of_all(done: Done, tmp_path: Path) -> None:
    first, second = ({**record, "validation": score} for record, score in zip(done.records, (0.25, 0.75), strict=True))
    failed = {**first, "key": "none", "ended": "failed", "validation": None, "loss": None, "error": "not finite"}
    documents = {CONFIRMED: done.confirmed, RECORDS: [failed, first, second], "provenance.json": {"search_seconds": 2}}
    results, record = done.sweep.results(done.store, QUIET), RunRecord("r1", tmp_path)
    parent, children = done.sweep.tracked(record, StepProgress(documents), results, "FINISHED", QUIET)  # type: ignore[arg-type]
    assert [child.name for child in children] == [  # MLflow lists the last first
        f"3: distance={first['settings']['distance']}",
        f"2: distance={first['settings']['distance']}",
        f"1: distance={second['settings']['distance']}",
    ]
    assert [child.status for child in children] == ["FAILED", "FINISHED", "FINISHED"]
    assert next(iter(children[-1].metrics)) == "validation"  # what its page of comparisons shows unasked
    table = parent.tables["configurations.json"]
    assert list(table[0]) == ["validation", "validation_loss", "distance", "trained_epochs", "ended", "key"]
    assert [(row["validation"], row["ended"]) for row in table] == [
        (0.75, "finished"),
        (0.25, "finished"),
        (None, "failed"),
    ]
    assert [(data.name, data.context) for data in parent.data] == [("films", "train")]  # test rows are not looked at
    assert parent.metrics["defaults confirmed"] == pytest.approx(
        next(result.mean for result, _ in results if result.method.endswith("defaults"))
    )
    assert {path.name for path in parent.files} >= {"best.yaml", "parallel-coordinates.svg"}


def test_records_of_a_search_that_are_damaged_are_told_and_hide_no_result(done: Done, tmp_path: Path) -> None:
    store = open_store(shutil.copytree(done.store.root, tmp_path / "store"))
    artifact = store.find(done.sweep.search)
    assert artifact is not None
    (artifact.folder / RECORDS).write_text("[]")
    results = done.sweep.results(store, QUIET)
    assert len(results) == len(done.confirmed["candidates"])
    parent, children = done.sweep.tracked(RunRecord("r1", tmp_path), store, results, "FAILED", QUIET)
    assert (parent.status, children) == ("FAILED", ())
    (told,) = done.sweep.notes(store, False)
    assert told.startswith(f"how the search went is not known: {artifact.folder / RECORDS}: found ")


def test_the_lines_shown_say_what_was_lost_and_what_could_not_be_confirmed(done: Done) -> None:
    first, second = done.records
    lost = {**second, "ended": "lost", "validation": None, "error": "its worker died 2 times"}
    failed = [{**BEST, "error": "no such distance"}]
    told = StepProgress(
        {
            CONFIRMED: {**done.confirmed, "failed": failed},
            RECORDS: [first, lost],
            "provenance.json": {"search_seconds": 2.0},
        }
    )
    lines = done.sweep.notes(told, True)  # type: ignore[arg-type]
    assert lines[0].endswith("0 failed, 1 lost")
    assert "  lost: its worker died 2 times" in lines
    assert "  not confirmed: best 1: no such distance" in lines


def test_a_search_of_trained_calibrators_is_the_same_in_packs_of_any_size(base: Path, tmp_path: Path) -> None:
    found = {}
    for pack in (1, 3):
        store = open_store(tmp_path / str(pack))
        given = config(
            method="calibration",
            settings={"epochs": 3},
            space={"learning_rate": {"log_uniform": [1e-3, 1e-2]}, "rank": {"choice": [2, 4]}},
            search={"trials": 5},
            confirm={"best": 1},
            execution={"executor": "inline", "pack": pack},
        )
        found[pack] = run(sweep(given, base, None, FingerprintCache(store.root / "facts.json"), store), store)
    one, three = found[1].records, found[3].records
    assert [record["key"] for record in one] == [record["key"] for record in three]
    assert len(one) == 5
    assert one[0]["settings"] == METHODS["calibration"].Settings.model_validate({"epochs": 3}).model_dump()
    for alone, packed in zip(one, three, strict=True):
        assert len(alone["curve"]) == 3
        assert alone["curve"] == pytest.approx(packed["curve"], abs=1e-3)
        assert alone["loss"] == min([*alone["curve"], alone["loss"]])
    best = max(one, key=lambda record: (record["validation"], -record["loss"]))
    assert best["settings"] in [candidate["settings"] for candidate in found[1].confirmed["candidates"]]
