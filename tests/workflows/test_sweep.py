"""The sweep workflow: what is refused before anything runs, and what comes of a search on a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from sklearn.neighbors import KNeighborsClassifier

from orchestration.executor import InlineEngine, run_plan
from orchestration.facts import Facts
from orchestration.files import replace_json
from orchestration.graph import Step
from orchestration.plan import make_plan
from orchestration.scratch import scratch_folder
from orchestration.store import Store, open_store
from orchestration.work import work_of
from tests import tiny
from workflows.config import CompareConfig
from workflows.errors import ConfigError
from workflows.methods import METHODS
from workflows.steps.methods import materials_of
from workflows.steps.sweep import CONFIRMED, RECORDS, SWEEP
from workflows.sweep import Sweep, checked_space, sweep
from workflows.sweep_config import SweepConfig

ROWS = [
    {"text": f"a {'fine' if i % 2 else 'dull'} film number {i}", "label": "good" if i % 2 else "bad"} for i in range(40)
]
TASK = {
    "name": "films",
    "source": {"train": "train.jsonl", "test": "test.jsonl"},
    "template": "review: {text}\n sentiment:",
    "words": {"bad": "negative", "good": "positive"},
}
SWEPT = {
    "workflow": "sweep",
    "name": "mine",
    "model": "model",
    "task": "films.yaml",
    "method": "knn",
    "space": {"k": {"choice": [1, 2]}, "distance": {"choice": ["cosine", "euclidean"]}},
    "search": {"algorithm": "grid"},
    "execution": {"executor": "inline"},
}
QUIET: Any = lambda *_: None  # noqa: E731


def config(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate({**SWEPT, **changes})


def write_rows(folder: Path, rows: list[dict[str, str]] = ROWS) -> None:
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a task and its rows."""
    folder = tmp_path_factory.mktemp("workspace")
    tiny.save(folder / "model", tiny.gpt2())
    write_rows(folder)
    (folder / "films.yaml").write_text(json.dumps(TASK))  # JSON is YAML
    return folder


Made = Callable[..., Sweep]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def made(base: Path, store: Store) -> Made:
    return lambda place=base, **changes: sweep(config(**changes), place, None, Facts(store.root / "facts.json"), store)


def begun(found: Sweep, store: Store) -> Path:
    """Leave what an unfinished search leaves; its scratch folder."""
    folder = scratch_folder(store.root, found.search.folder)
    replace_json(folder / SWEEP, {"name": found.config.name, "identity": dict(found.search.identity)})
    return folder


def refusal(**changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        checked_space(config(**changes))
    return caught.value


def test_a_mistake_in_the_space_is_about_its_place_in_the_file() -> None:
    error = refusal(space={"k": {"choice": [1, 2]}, "distanse": {"choice": ["cosine"]}})
    assert "method 'knn' has no setting 'distanse'; did you mean 'distance'?" in str(error)
    assert error.place == ("space", "distanse")
    assert refusal(settings={"k": 3}).place == ("space", "k")
    assert refusal(space={"k": {"choice": [0, 1]}}).place == ("space", "k")
    assert refusal(space={}).place == ("space",)


def test_without_a_space_the_methods_own_is_searched_but_for_what_is_fixed() -> None:
    assert checked_space(config(space=None)) == METHODS["knn"].space
    assert checked_space(config(space=None, settings={"k": 3})).keys() == {"distance"}
    assert "an empty space" in str(refusal(space=None, settings={"k": 3, "distance": "cosine"}))
    assert "an empty space" in str(refusal(space=None, method="affinity"))


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_stopping_is_refused_where_nothing_tells_epochs(rule: str) -> None:
    error = refusal(search={"stopping": rule})
    told = f"stopping '{rule}': method 'knn' never reports a loss while it is fitted; use `none`, or one of calibration"
    assert str(error).startswith(told)
    assert error.place == ("search", "stopping")
    rate = {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    assert checked_space(config(method="calibration", search={"stopping": rule}, space=rate))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layer": "layer_01"}, r"layer 'layer_01' is not stored; add it to encoding.layers \['head'\]"),
        ({"search": {"algorithm": "grid", "trials": 4}}, "a grid has as many as its space; take `trials` out"),
        ({"search": {"trials": 1}}, "search.trials"),
        ({"search": {"stopping": "hyperband"}}, "search.stopping"),
        ({"confirm": {"seeds": 1}}, "confirm.seeds"),
        ({"space": {"k": {"choice": [1], "integer": [1, 2]}}}, r"space.k\n.*integer.*choice"),
        ({"name": "a b"}, "name"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        config(**changes)


def test_a_layer_that_is_stored_is_accepted() -> None:
    assert config(layer="layer_01", encoding={"layers": ["head", "layer_01"]}).layer == "layer_01"


@pytest.mark.parametrize(
    ("changes", "told", "place"),
    [
        ({"method": "kn"}, "unknown method 'kn'; did you mean 'knn'", ("method",)),
        ({"settings": {"kk": 1}}, "has no setting 'kk'", ("settings",)),
        ({"task": "none.yaml"}, "none.yaml", ()),
        ({"model": "./none"}, "none", ("model",)),
        ({"layer": "layer_77", "encoding": {"layers": ["layer_77"]}}, "no layer 'layer_77'", ("encoding",)),
    ],
)
def test_what_is_not_found_is_named_with_its_field(
    made: Made, changes: dict[str, Any], told: str, place: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        made(**changes)
    assert caught.value.place[: len(place)] == place


def test_a_grid_over_numbers_without_steps_is_refused(made: Made) -> None:
    with pytest.raises(ConfigError, match="setting 'inverse_penalty': a grid needs values, not log_uniform"):
        made(method="linear-probe", space={"inverse_penalty": {"log_uniform": [0.1, 1]}})


def test_where_and_how_many_at_once_is_no_part_of_a_search(made: Made) -> None:
    elsewhere = made(execution={"executor": "ray", "concurrent": 7, "pack": 3, "cores": 2})
    assert elsewhere.search.key == made().search.key
    assert made(search={"algorithm": "grid", "seed": 1}).search.key != made().search.key
    assert made(confirm={"best": 1}).search.key == made().search.key
    assert made(confirm={"best": 1}).confirm.key != made().confirm.key


def test_a_configuration_that_stands_twice_is_tried_once(made: Made) -> None:
    whole = made(search={"trials": 64}, space={"k": {"choice": [16]}})  # the defaults are all there is
    assert len(whole.search.identity["listed"]) == whole.search.identity["trials"] == 1
    assert made().search.identity["trials"] == 4


def test_an_unfinished_sweep_of_this_name_that_searches_something_else_is_told_apart(made: Made, store: Store) -> None:
    begun(made(), store)
    with pytest.raises(ConfigError) as caught:
        made(space={"k": {"choice": [1, 4]}, "distance": {"choice": ["cosine", "euclidean"]}})
    told = str(caught.value)
    assert (
        "sweep 'mine' was begun with other contents and is not finished: space.k.choice was [1, 2], is [1, 4]." in told
    )
    assert "distance" not in told
    assert "listed" not in told
    assert caught.value.place == ("name",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"algorithm": "grid", "seed": 3}}, "search.seed was 0, is 3"),
        ({"search": {"algorithm": "random", "trials": 3}}, "search.algorithm was grid, is random"),
        ({"space": {"k": {"choice": [1, 2]}}}, r"space.distance was {'choice': \['cosine', 'euclidean'\]}, is None"),
        ({"space": {"k": {"choice": [1, 2]}}, "settings": {"distance": "euclidean"}}, "fixed.distance was None, is eu"),
        ({"train_size": 4}, "train_size was full, is 4"),
    ],
)
def test_the_difference_to_the_unfinished_sweep_is_named(
    made: Made, store: Store, changes: dict[str, Any], told: str
) -> None:
    begun(made(), store)
    with pytest.raises(ConfigError, match=told):
        made(**changes)


def test_an_unfinished_sweep_on_other_rows_is_told_as_such(
    made: Made, store: Store, base: Path, tmp_path: Path
) -> None:
    begun(made(), store)
    other = tmp_path / "other"
    other.mkdir()
    (other / "model").symlink_to(base / "model")
    shutil.copy(base / "films.yaml", other / "films.yaml")
    write_rows(other, ROWS[:30])
    with pytest.raises(ConfigError, match="not finished: its rows or its model are others now"):
        made(place=other)


def test_the_same_sweep_another_name_and_a_removed_folder_are_allowed(made: Made, store: Store) -> None:
    folder = begun(made(), store)
    changed = {"space": {"k": {"choice": [1, 4]}}}
    assert made().search.key == made(execution={"executor": "ray"}).search.key
    assert made(name="another", **changed).config.name == "another"
    with pytest.raises(ConfigError, match=f"or remove {folder} to begin anew"):
        made(**changed)
    shutil.rmtree(folder)
    assert made(**changed).config.name == "mine"


@dataclass(frozen=True)
class Done:
    sweep: Sweep
    store: Store
    records: list[dict[str, Any]]
    confirmed: dict[str, Any]


def run(found: Sweep, store: Store) -> Done:
    outcomes = run_plan(make_plan(found.targets, store), lambda: InlineEngine(store, QUIET), QUIET)
    assert {outcome.state for outcome in outcomes.values()} <= {"ran", "cached"}, outcomes
    return Done(found, store, found.records(store), artifact_json(store, found.confirm, CONFIRMED))


def artifact_json(store: Store, step: Step, name: str) -> Any:
    artifact = store.find(step)
    assert artifact is not None
    return artifact.json(name)


@pytest.fixture(scope="module")
def done(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    store = open_store(tmp_path_factory.mktemp("done") / "store")
    given = config(
        settings={"k": 3}, space={"distance": {"choice": ["euclidean", "cosine"]}}, encoding={"store_dtype": "float32"}
    )
    return run(sweep(given, base, None, Facts(store.root / "facts.json"), store), store)


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


def test_the_best_are_confirmed_beside_the_defaults_with_seeds_of_their_own(done: Done) -> None:
    names = {candidate["name"]: candidate["settings"] for candidate in done.confirmed["candidates"]}
    assert names["defaults"] == {"k": 3, "distance": "cosine"}
    assert set(map(str, names.values())) == {str(one["settings"]) for one in done.records}
    assert done.sweep.confirm.identity["seeds"] == [1, 2, 3, 4, 5]
    means = [candidate["mean"] for candidate in done.confirmed["candidates"]]
    assert means == sorted(means, reverse=True)
    winner, *others = done.confirmed["candidates"]
    for candidate in others:
        lead = done.confirmed["leads"][candidate["name"]]
        assert lead["mean"] == pytest.approx(winner["mean"] - candidate["mean"])
        assert lead["low"] <= lead["mean"] <= lead["high"]


def test_results_are_the_candidates_on_validation_rows(done: Done) -> None:
    results = done.sweep.results(done.store, QUIET)
    assert [(result.mean, result.rows) for result, _ in results] == [
        (candidate["mean"], "validation") for candidate in done.confirmed["candidates"]
    ]
    assert results[0][0].n_test == done.confirmed["rows"] == 8


def test_best_yaml_is_a_comparison_of_the_winner_and_the_defaults(done: Done) -> None:
    text = done.sweep.best_yaml(done.store)
    found = CompareConfig.model_validate(yaml.safe_load(text))
    assert text.startswith("# The best of sweep mine (")
    assert (found.models, found.tasks, found.search.trials) == (("model",), ("films.yaml",), 0)
    assert [method.label for method in found.methods] == ["knn-defaults", "knn-best"]
    assert [method.settings for method in found.methods] == [
        {"k": 3},
        done.confirmed["candidates"][0]["settings"],
    ]
    assert found.seeds == (1, 2, 3, 4, 5)
    assert found.encoding.store_dtype == "float32"


def test_a_finished_sweep_is_no_obstacle_to_another_of_its_name(done: Done, base: Path) -> None:
    facts = Facts(done.store.root / "facts.json")
    assert sweep(config(), base, None, facts, done.store).search.key != done.sweep.search.key


def test_the_lines_shown_say_how_many_and_whether_the_lead_is_noise(done: Done) -> None:
    lines = done.sweep.notes(done.store, True)
    assert lines[0].startswith("2 configurations in ")
    assert lines[0].endswith("0 stopped early, 0 failed")
    (told,) = [line for line in lines if " leads " in line]
    assert told.endswith(": within noise") == (next(iter(done.confirmed["leads"].values()))["low"] <= 0)


def test_a_search_of_trained_calibrators_is_the_same_in_packs_of_any_size(base: Path, tmp_path: Path) -> None:
    found = {}
    for pack in (1, 3):
        store = open_store(tmp_path / str(pack))
        given = config(
            method="calibration",
            settings={"epochs": 3},
            space={"learning_rate": {"log_uniform": [1e-3, 1e-2]}, "rank": {"choice": [2, 4]}},
            search={"trials": 5},
            confirm={"best": 1, "seeds": 2},
            execution={"executor": "inline", "pack": pack},
        )
        found[pack] = run(sweep(given, base, None, Facts(store.root / "facts.json"), store), store)
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
