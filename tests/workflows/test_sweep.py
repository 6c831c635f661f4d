"""The sweep workflow: what is refused before anything runs, and what comes of a search on a tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
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
from vocabsem_core.errors import InputError
from workflows.config import CompareConfig
from workflows.errors import ConfigError
from workflows.methods import METHODS
from workflows.steps.methods import materials_of
from workflows.steps.sweep import CONFIRMED, RECORDS, SWEEP, fill_confirm
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
    replace_json(folder / SWEEP, {"name": found.config.name, "asked": found.search.local["asked"]})
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


@pytest.mark.parametrize("method", ["affinity", "zero-shot"])
def test_a_method_that_reads_no_training_rows_is_refused(method: str) -> None:
    error = refusal(space=None, method=method)
    assert str(error) == f"method {method!r} reads no training rows, so there are none to choose by"
    assert error.place == ("method",)


def test_a_grid_of_too_many_is_refused_at_its_space() -> None:
    error = refusal(space={"k": {"integer": [1, 1_000_000]}})
    assert "1,000,000 combinations; a grid may have 100,000" in str(error)
    assert error.place == ("space",)


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
        ({"confirm": {"best": 0}}, "confirm.best"),
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
    assert whole.search.identity["listed"] == [{"k": 16, "distance": "cosine"}]
    assert len(made().search.identity["listed"]) == 4


def test_what_a_search_is_known_by_is_what_decides_its_result(made: Made) -> None:
    grid, optuna = made().search.identity, made(search={"algorithm": "optuna", "trials": 9}).search.identity
    assert (grid["optuna"], grid["stopping"], grid["time_limit"]) == (None, None, None)
    assert optuna["listed"] is None
    assert optuna["optuna"] == {"space": SWEPT["space"], "fixed": {}, "trials": 9}
    drawn = {"space": {"k": {"integer": [1, 500]}}}
    random, turned = (made(search={"seed": seed}, **drawn).search.identity["listed"] for seed in (0, 1))
    assert len(random) == 64
    assert random != turned


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


def test_an_unfinished_sweep_of_this_name_that_searches_something_else_is_told_apart(made: Made, store: Store) -> None:
    begun(made(), store)
    with pytest.raises(ConfigError) as caught:
        made(space={"k": {"choice": [1, 4]}, "distance": {"choice": ["cosine", "euclidean"]}})
    told = str(caught.value)
    assert (
        "sweep 'mine' was begun with other contents and is not finished: space.k.choice was [1, 2], is [1, 4]." in told
    )
    assert "distance" not in told
    assert caught.value.place == ("name",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"search": {"algorithm": "grid", "seed": 3}}, "search.seed was 0, is 3"),
        ({"search": {"algorithm": "random", "trials": 3}}, "search.algorithm was grid, is random"),
        ({"space": {"k": {"choice": [1, 2]}}}, r"space.distance was {'choice': \['cosine', 'euclidean'\].*}, is None"),
        (
            {"space": {"k": {"choice": [1, 2]}}, "settings": {"distance": "euclidean"}},
            "settings.distance was None, is eu",
        ),
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
    assert list(done.sweep.confirm.identity["folds"]) == [1, 2, 3, 4]
    means = [candidate["mean"] for candidate in done.confirmed["candidates"]]
    assert means == sorted(means, reverse=True)
    winner, *others = done.confirmed["candidates"]
    for candidate in others:
        lead = done.confirmed["leads"][candidate["name"]]
        assert lead["mean"] == pytest.approx(winner["mean"] - candidate["mean"])
        assert lead["low"] <= lead["mean"] <= lead["high"]
        assert 0 < lead["p"] <= 1
    assert done.confirmed["failed"] == []


def test_a_candidates_score_is_scikit_learns_on_the_four_fifths_the_search_did_not_choose_by(done: Done) -> None:
    work = work_of(done.sweep.search, done.store)
    folds = [materials_of(work, seed=fold, fold=fold) for fold in range(5)]
    for candidate in done.confirmed["candidates"]:
        metric = candidate["settings"]["distance"]
        right = []
        for one in folds[1:]:
            oracle = KNeighborsClassifier(n_neighbors=3, metric=metric, algorithm="brute")
            oracle.fit(one.train.states.numpy(), one.train.labels.numpy())
            right.append(oracle.predict(one.validation.states.numpy()) == one.validation.labels.numpy())
        assert candidate["mean"] == pytest.approx(np.concatenate(right).mean())
        assert candidate["sd"] == pytest.approx(np.std([part.mean() for part in right], ddof=1))
        assert candidate["low"] <= candidate["mean"] <= candidate["high"]
    chosen_by, *others = ({tuple(row) for row in one.validation.states.tolist()} for one in folds)
    assert not chosen_by & set().union(*others)
    assert len(set().union(*others)) == done.confirmed["rows"]


def test_results_are_the_candidates_on_validation_rows(done: Done) -> None:
    results = done.sweep.results(done.store, QUIET)
    assert [(result.mean, result.rows) for result, _ in results] == [
        (candidate["mean"], "validation") for candidate in done.confirmed["candidates"]
    ]
    assert results[0][0].n_test == done.confirmed["rows"] == 32  # four fifths
    assert results[0][0].seeds == [1, 2, 3, 4]
    assert [result.sd_seeds for result, _ in results] == [one["sd"] for one in done.confirmed["candidates"]]


class Told:
    """A store that has made-up documents of a finished sweep."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self._documents = documents

    def find(self, step: Step) -> Told:
        return self

    def json(self, name: str) -> Any:
        return self._documents[name]


def retold(done: Done, **changes: Any) -> Any:
    provenance = {"search_seconds": 2.0}
    confirmed = {**done.confirmed, **changes}
    return Told({CONFIRMED: confirmed, RECORDS: done.records, "provenance.json": provenance})


def candidate(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "settings": settings, "mean": 0.5, "low": 0.4, "high": 0.6}


BEST, DEFAULT = candidate("best 1", k=3, distance="euclidean"), candidate("defaults", k=3, distance="cosine")


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


def test_a_finished_sweep_is_no_obstacle_to_another_of_its_name(done: Done, base: Path) -> None:
    facts = Facts(done.store.root / "facts.json")
    assert sweep(config(), base, None, facts, done.store).search.key != done.sweep.search.key


def test_a_finished_sweep_is_not_refused_while_another_of_its_name_is_unfinished(done: Done, base: Path) -> None:
    facts = Facts(done.store.root / "facts.json")
    folder = begun(sweep(config(), base, None, facts, done.store), done.store)
    try:
        assert sweep(done.sweep.config, base, None, facts, done.store).search.key == done.sweep.search.key
        with pytest.raises(ConfigError, match="not finished"):
            sweep(config(train_size=4), base, None, facts, done.store)
    finally:
        shutil.rmtree(folder)


def test_the_lines_shown_say_how_many_and_whether_the_lead_is_noise(done: Done) -> None:
    lines = done.sweep.notes(done.store, True)
    assert lines[0].startswith("2 configurations in ")
    assert lines[0].endswith("0 stopped early, 0 failed, 0 lost")
    (told,) = [line for line in lines if " leads " in line]
    (lead,) = done.confirmed["leads"].values()
    assert told.endswith(f"p {lead['p']:.4f}): " + ("more than noise" if lead["p"] < 0.05 else "within noise"))


@pytest.mark.parametrize(("p", "low", "verdict"), [(0.049, -0.01, "more than noise"), (0.05, 0.01, "within noise")])
def test_the_verdict_is_by_the_randomisation_test(done: Done, p: float, low: float, verdict: str) -> None:
    leads = {"defaults": {"mean": 0.1, "low": low, "high": 0.2, "p": p}}
    lines = done.sweep.notes(retold(done, candidates=[BEST, DEFAULT], leads=leads), True)
    assert lines[-1] == f"best 1 leads defaults by 0.100 ({low:.3f} to 0.200, p {p:.4f}): {verdict}"


def test_the_lines_shown_say_what_was_lost_and_what_could_not_be_confirmed(done: Done) -> None:
    first, second = done.records
    lost = {**second, "ended": "lost", "validation": None, "error": "its worker died 2 times"}
    failed = [{**BEST, "error": "no such distance"}]
    told = Told(
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


def refits(done: Done, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[Any, Any, int], bool]) -> dict[str, Any]:
    """What the confirmation writes where some fits are refused."""
    plain = type(METHODS["knn"]).fit

    def fit(self: Any, settings: Any, materials: Any, seed: int) -> Any:
        if refuse(settings, materials, seed):
            raise InputError(f"no {settings.distance}")
        return plain(self, settings, materials, seed)

    written: dict[str, bytes] = {}
    monkeypatch.setattr(type(METHODS["knn"]), "fit", fit)
    work = work_of(done.sweep.confirm, done.store)
    fill_confirm(replace(work, out=SimpleNamespace(write=written.__setitem__)))  # type: ignore[arg-type]
    return json.loads(written[CONFIRMED])


def test_a_candidate_that_cannot_be_fitted_anew_is_named_and_the_others_are_confirmed(
    done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = refits(done, monkeypatch, lambda settings, rows, _: settings.distance == "euclidean" and rows.fold == 3)
    ((name, settings),) = [
        (one["name"], one["settings"]) for one in done.confirmed["candidates"] if one["name"] != "defaults"
    ]
    assert found["failed"] == [{"name": name, "settings": settings, "error": "no euclidean"}]
    assert [one["name"] for one in found["candidates"]] == ["defaults"]
    assert found["leads"] == {}


def test_where_none_can_be_fitted_anew_the_first_says_why(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"knn: none of the best could be fitted anew; the first: no (cos|eucl)"):
        refits(done, monkeypatch, lambda *_: True)


def test_each_fold_is_fitted_with_a_seed_of_its_own(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[str, int, int, int]] = []

    def note(settings: Any, rows: Any, seed: int) -> bool:
        fits.append((settings.distance, rows.fold, rows.seed, seed))
        return False

    assert refits(done, monkeypatch, note)["failed"] == []
    expected = [(name, fold, 0, fold) for name in ("cosine", "euclidean") for fold in (1, 2, 3, 4)]
    assert sorted(fits) == expected


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
