"""Sweeps that make no sense are refused before anything runs, with their place in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.workflows.sweeps import Made, config
from workflows.errors import ConfigError
from workflows.methods.registry import METHODS
from workflows.search.trials import listed
from workflows.sweep.checks import sweep_method

EPOCHS = """
from workflows.methods.knn import Knn

class Tells(Knn):
    name = "tells"
    has_epochs = True
"""


def refusal(**changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        sweep_method(config(**changes))
    return caught.value


def test_a_mistake_in_the_space_is_about_its_place_in_the_file() -> None:
    error = refusal(space={"k": {"choice": [1, 2]}, "distanse": {"choice": ["cosine"]}})
    assert "method 'knn' has no setting 'distanse'; did you mean 'distance'?" in str(error)
    assert error.place == ("space", "distanse")
    assert refusal(settings={"k": 3}).place == ("space", "k")
    assert refusal(space={"k": {"choice": [0, 1]}}).place == ("space", "k")
    assert refusal(space={}).place == ("space",)


def test_without_a_space_the_methods_own_is_searched_but_for_what_is_fixed() -> None:
    assert sweep_method(config(space=None)).space == METHODS["knn"].space
    assert sweep_method(config(space=None, settings={"k": 3})).space.keys() == {"distance"}
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


@pytest.mark.parametrize("algorithm", ["grid", "random", "optuna"])
def test_combinations_that_the_method_refuses_are_left_out_and_none_left_is_told(algorithm: str) -> None:
    paper: dict[str, Any] = {"method": "calibration-paper", "search": {"algorithm": algorithm}}
    space = {"loss": {"choice": ["labels", "sm-gt"]}, "training": {"choice": ["sm", "mm"]}}
    assert sweep_method(config(**paper, space=space)).space.keys() == space.keys()
    method = METHODS["calibration-paper"]
    domains = sweep_method(config(**paper, space=space)).space
    assert len(listed(method, domains, {}, None, 0)) == 3
    assert len(listed(method, domains, {}, 9, 0)) == 4  # the defaults are none of them
    error = refusal(**paper, space={"loss": {"choice": ["sm-gt"]}, "training": {"choice": ["mm"]}})
    assert "no combination of the space is valid: Value error, training mm: loss sm-gt is a similarity" in str(error)
    assert error.place == ("space",)


def test_choices_are_read_as_the_settings_read_them() -> None:
    space = sweep_method(config(method="calibration", space={"learning_rate": {"choice": ["1e-4", 0.001]}})).space
    assert space["learning_rate"].values == (1e-4, 1e-3)
    error = refusal(method="calibration", space={"learning_rate": {"choice": ["1e-3", 0.001]}})
    assert "a value is listed twice" in str(error)
    assert error.place == ("space", "learning_rate")


def test_a_whole_number_that_is_too_large_for_a_grid_is_refused() -> None:
    assert "combinations; a grid may have" in str(refusal(space={"k": {"integer": [1, 10**20]}}))


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_stopping_is_refused_where_epochs_have_no_end(rule: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EPOCHS)
    error = refusal(method=str(tmp_path / "mine.py"), space={"k": {"choice": [1, 2]}}, search={"stopping": rule})
    told = "method 'tells' has no setting `epochs`; use `none`, or one of calibration, calibration-paper, "
    assert told in str(error)


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_stopping_is_refused_where_nothing_tells_epochs(rule: str) -> None:
    error = refusal(search={"stopping": rule})
    told = f"stopping '{rule}': method 'knn' never reports a loss while it is fitted; use `none`, or one of "
    assert str(error) == f"{told}calibration, calibration-paper, calibration-paper-centred"
    assert error.place == ("search", "stopping")
    rate = {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    assert sweep_method(config(method="calibration", search={"stopping": rule}, space=rate)).space


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layer": "layer_01"}, r"layer 'layer_01' is not stored; add it to encoding.layers \['head'\]"),
        ({"search": {"algorithm": "grid", "trials": 4}}, "a grid has as many as its space; remove `trials`"),
        ({"search": {"trials": 1}}, "search.trials"),
        ({"search": {"seed": 2**33}}, "search.seed"),
        ({"search": {"stopping": "hyperband"}}, "search.stopping"),
        ({"confirm": {"seeds": 1}}, "confirm.seeds"),
        ({"confirm": {"best": 0}}, "confirm.best"),
        ({"space": {"k": {"choice": [1], "integer": [1, 2]}}}, r"space.k\n.*integer.*choice"),
        ({"name": "a b"}, "name"),
        ({"execution": {"trainers": 2}}, "execution.trainers"),
        ({"execution": {"cores_per_trainer": 1}}, "execution.cores_per_trainer"),
        ({"execution": {"gpus_per_trainer": 1}}, "execution.gpus_per_trainer"),
        ({"execution": {"gpus": 2}}, "execution.gpus"),
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
