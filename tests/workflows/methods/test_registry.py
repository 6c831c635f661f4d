"""The methods' settings, search spaces, trials, what the user fixes, and fits of several."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError

from vocabsem_core.calibration.modules import Labelled, paper
from vocabsem_core.calibration.targets import centred_means
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.errors import InputError
from workflows.config.compare import MethodConfig
from workflows.config.space import check_space, random_settings
from workflows.config.strict import Strict
from workflows.errors import ConfigError
from workflows.methods.base import Fitted, Method
from workflows.methods.registry import METHODS, method_named
from workflows.methods.resolved import resolve

TUNABLE = sorted(name for name, method in METHODS.items() if method.space)
WIDE = [name for name in TUNABLE if name != "icl"]  # its space has no more than two settings
PINNED = ("k", "learning_rate", "inverse_penalty", "contextual")  # of each tunable method, one is pinned below


def pinned(name: str) -> dict[str, Any]:
    field = next(field for field in PINNED if field in METHODS[name].space)
    return {field: METHODS[name].Settings.model_validate({}).model_dump()[field]}


def trial_settings(name: str, fixed: dict[str, Any], trials: int, seed: int) -> list[dict[str, Any]]:
    space = {field: domain for field, domain in METHODS[name].space.items() if field not in fixed}
    return random_settings(space, fixed, trials, seed)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_defaults_are_valid_and_described(name: str) -> None:
    settings = METHODS[name].Settings
    assert settings.model_validate(settings().model_dump()) == settings()
    assert all(field.description for field in settings.model_fields.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name_and_needs_only_known_things(name: str) -> None:
    method = method_named(name)
    assert method.name == name
    assert method.needs <= {"train", "unlabelled", "head", "basis", "spectrum"}


@pytest.mark.parametrize("name", TUNABLE)
def test_a_methods_own_space_can_be_searched(name: str) -> None:
    check_space(name, METHODS[name].Settings, METHODS[name].space, {})


@pytest.mark.parametrize("name", TUNABLE)
def test_every_trial_is_a_valid_setting_and_json(name: str) -> None:
    for settings in trial_settings(name, {}, 40, seed=0):
        METHODS[name].Settings.model_validate(settings)
        assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("trials", [1, 2, 8])
def test_the_defaults_are_tried_first_and_the_count_is_exact(name: str, trials: int) -> None:
    tried = trial_settings(name, {}, trials, seed=0)
    assert len(tried) == trials
    assert tried[0] == {}


@pytest.mark.parametrize("name", WIDE)
def test_trials_follow_the_seed(name: str) -> None:
    tried = trial_settings(name, {}, 8, seed=1)
    assert tried == trial_settings(name, {}, 8, seed=1)
    assert tried != trial_settings(name, {}, 8, seed=2)


@pytest.mark.parametrize("name", TUNABLE)
def test_a_larger_budget_tries_the_smaller_ones_settings_first(name: str) -> None:
    assert trial_settings(name, {}, 8, seed=0)[:4] == trial_settings(name, {}, 4, seed=0)


@pytest.mark.parametrize("name", TUNABLE)
def test_what_the_user_fixed_is_never_varied(name: str) -> None:
    fixed = pinned(name)
    tried = trial_settings(name, fixed, 8, seed=0)
    assert tried[0] == fixed
    assert all(settings.items() >= fixed.items() for settings in tried)
    assert all(set(settings) == set(METHODS[name].space) | set(fixed) for settings in tried[1:])


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"peft"}))  # which takes a folder
def test_no_settings_of_the_user_fix_nothing(name: str) -> None:
    assert resolve(MethodConfig(method=name)).settings == {}


def test_the_users_settings_are_taken_as_given() -> None:
    assert resolve(MethodConfig(method="knn", settings={"k": 3})).settings == {"k": 3}


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'afinity'; did you mean 'affinity'\?"):
        resolve(MethodConfig(method="afinity"))


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"method 'knn' has no setting 'distanse'; did you mean 'distance'\?"):
        resolve(MethodConfig(method="knn", settings={"distanse": "cosine"}))


def test_a_setting_of_a_method_without_any_is_refused() -> None:
    with pytest.raises(ConfigError, match="method 'centroid' has no setting 'k'; it has no settings"):
        resolve(MethodConfig(method="centroid", settings={"k": 1}))


@pytest.mark.parametrize(("setting", "value"), [("k", 0), ("k", "few"), ("distance", "dot")])
def test_a_bad_value_is_refused_with_method_setting_and_value(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"method 'knn', setting '{setting}': found {value!r}; Input should be"):
        resolve(MethodConfig(method="knn", settings={setting: value}))


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        resolve(MethodConfig(method="calibration", settings={"learning_rate": float("inf")}))


def test_one_number_written_in_two_ways_is_one_setting() -> None:
    """YAML reads `1e-3` as text and `0.001` as a number; the key of a fit is made from what comes out here."""
    text, number = ({"learning_rate": value} for value in ("1e-3", 0.001))
    assert resolve(MethodConfig(method="calibration", settings=text)).settings == number


def test_a_fit_depends_on_the_seed_by_its_method_or_by_a_subsample() -> None:
    assert resolve(MethodConfig(method="calibration")).depends_on_seed("full")
    assert not resolve(MethodConfig(method="knn")).depends_on_seed("full")
    assert resolve(MethodConfig(method="knn")).depends_on_seed(8)
    assert not resolve(MethodConfig(method="affinity")).depends_on_seed(8)
    assert not resolve(MethodConfig(method="semantic-prior")).depends_on_seed("full")
    assert resolve(MethodConfig(method="semantic-prior", settings={"targets": "unrelated"})).depends_on_seed("full")


class Numbered(Strict):
    number: int = 0


class Odd(Method):
    """Fits odd numbers only, and remembers what it fitted."""

    name = "odd"
    needs: ClassVar = frozenset({"train"})
    Settings: ClassVar = Numbered

    def __init__(self) -> None:
        self.fitted: list[tuple[int, int]] = []

    def fit(self, settings: Numbered, materials: Any, seed: int) -> dict[str, torch.Tensor]:
        self.fitted.append((settings.number, seed))
        if settings.number % 2 == 0:
            raise InputError(f"{settings.number} is even")
        return {"weight": torch.tensor([settings.number, seed])}

    def predict(self, settings: Any, fitted: Any, states: torch.Tensor, materials: Any) -> torch.Tensor:
        return states


def test_several_are_fitted_one_after_another_and_one_that_cannot_be_is_an_error_in_its_place() -> None:
    method = Odd()
    jobs = [(Numbered(number=number), seed) for number, seed in ((1, 7), (2, 8), (3, 9))]
    first, second, third = method.fit_many(jobs, None)
    assert method.fitted == [(1, 7), (2, 8), (3, 9)]
    assert isinstance(first, Fitted)
    assert isinstance(third, Fitted)
    assert (first.tensors["weight"].tolist(), third.tensors["weight"].tolist()) == ([1, 7], [3, 9])
    assert (first.validation_loss, first.epochs) == (None, None)
    assert isinstance(second, InputError)
    assert str(second) == "2 is even"


def test_a_mistake_in_a_method_is_no_failed_fit() -> None:
    class Broken(Odd):
        def fit(self, settings: Numbered, materials: Any, seed: int) -> dict[str, torch.Tensor]:
            raise KeyError("weight")

    with pytest.raises(KeyError, match="weight"):
        Broken().fit_many([(Numbered(), 0)], None)


def test_by_default_all_settings_are_of_one_structure() -> None:
    method = Odd()
    assert method.structure(Numbered(number=1)) == method.structure(Numbered(number=2)) == ()
    assert method.fit_bytes(Numbered(), None) == 0


def test_methods_are_imported_without_torch() -> None:
    code = "import sys, workflows.methods.registry, workflows.steps.fit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["basis", "head", "embedding", "class-means", "random", "learned"])
def test_a_calibration_predicts_with_the_targets_it_was_fitted_to(kind: str) -> None:
    """Rows of other targets never stand in: the fit holds its own, and they are of the kind that was asked for."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    states = torch.randn(40, 16, generator=draw) + 3 * labels.unsqueeze(1)
    rows = Labelled(states, labels)
    label_rows = {name: torch.randn(2, 16, generator=draw) for name in ("basis", "head", "embedding", "random")}
    materials = SimpleNamespace(
        train=rows,
        stored_train=rows,
        stored_validation=rows,
        labels=["a", "b"],
        device=torch.device("cpu"),
        head_width=16,
        label_rows=lambda kind, shrinkage: label_rows[kind] * shrinkage,
        centre=lambda kind: states.mean(dim=0),
    )
    method = METHODS["calibration"]
    settings = method.Settings.model_validate({"targets": kind, "rank": 4, "epochs": 30, "learning_rate": 0.01})
    fitted = method.fit(settings, materials, 0)
    own = label_rows.get(kind, label_rows["basis"])
    expected = centred_means(states, labels, 2) if kind == "class-means" else own - own.mean(dim=0)
    assert torch.equal(fitted["targets"], expected)
    assert torch.equal(fitted["centre"], states.mean(dim=0))
    assert ("learned_targets" in fitted) == (kind == "learned")
    blind = SimpleNamespace(labels=["a", "b"])  # nothing to predict from but the fit
    accuracy = (method.predict(settings, fitted, states, blind).argmax(dim=1) == labels).float().mean()
    assert accuracy > 0.9
    learned = 2 * 16 if kind == "learned" else 0
    assert method.trained_weights(fitted) == 4 * 16 * 2 + 4 + 16 + 1 + learned


@pytest.mark.parametrize("training", ["sm", "mm"])
@pytest.mark.parametrize("inference", ["sm", "mm"])
def test_the_papers_module_is_trained_and_read_by_similarity_or_by_product(training: str, inference: str) -> None:
    """Against the formulas: cosine to the basis rows, or the product with the head's rows (paper, table 6)."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    rows = Labelled(torch.randn(40, 64, generator=draw) + 3 * labels.unsqueeze(1), labels)
    head, basis = torch.randn(7, 64, generator=draw), torch.randn(7, 64, generator=draw)
    materials = SimpleNamespace(
        stored_train=rows,
        stored_validation=rows,
        device=torch.device("cpu"),
        class_basis=basis[:2],
        other_basis=Vocabulary(basis[2:]),
        label_rows=lambda kind, shrinkage: {"head": head[:2]}[kind],
        other_head=Vocabulary(head[2:]),
    )
    method = METHODS["calibration-paper"]
    settings = method.Settings.model_validate(
        {"training": training, "inference": inference, "epochs": 100, "learning_rate": 0.01}
    )
    fitted = method.fit(settings, materials, 0)
    moved = paper(rows.states, fitted)
    product, similarity = (
        moved @ head[:2].T,
        torch.nn.functional.cosine_similarity(moved.unsqueeze(1), basis[:2].unsqueeze(0), dim=-1),
    )
    expected = product if inference == "mm" else similarity
    torch.testing.assert_close(method.predict(settings, fitted, rows.states, None), expected, rtol=1e-4, atol=1e-5)
    trained = product if training == "mm" else similarity
    assert (trained.argmax(dim=1) == labels).float().mean() > 0.9
    other = {"mm": "sm", "sm": "mm"}[training]
    assert not torch.equal(
        fitted["mlp.up"], method.fit(settings.model_copy(update={"training": other}), materials, 0)["mlp.up"]
    )


def test_the_papers_similarity_loss_takes_no_product() -> None:
    with pytest.raises(ValidationError, match="training mm: loss sm-gt is a similarity"):
        METHODS["calibration-paper"].Settings.model_validate({"loss": "sm-gt", "training": "mm"})


@pytest.mark.parametrize(
    ("name", "settings", "searched", "more"),
    [
        ("calibration", {}, (), {"spectrum", "unlabelled"}),
        ("calibration", {"centre": "none"}, (), {"spectrum"}),
        ("calibration", {"centre": "content-free"}, (), {"spectrum", "content_free"}),
        ("calibration", {}, ("centre",), {"spectrum", "content_free", "unlabelled"}),
        ("calibration", {"targets": "random"}, (), {"head", "unlabelled"}),
        ("calibration", {"targets": "head"}, (), {"head", "unlabelled"}),
        ("calibration", {"targets": "class-means"}, (), {"unlabelled"}),
        ("calibration", {"targets": "embedding"}, (), {"head", "embedding", "unlabelled"}),
        ("calibration", {}, ("targets",), {"spectrum", "head", "embedding", "unlabelled"}),
        ("calibration-paper", {}, (), {"basis"}),
        ("calibration-paper", {"inference": "mm"}, (), {"basis", "head"}),
        ("calibration-paper", {}, ("training",), {"basis", "head"}),
        ("semantic-prior", {}, (), {"spectrum", "unlabelled"}),
        ("semantic-prior", {"targets": "shuffled"}, (), {"spectrum", "unlabelled"}),
        ("semantic-prior", {"targets": "unrelated"}, (), {"spectrum", "unlabelled"}),
        ("semantic-prior", {"targets": "none"}, (), {"unlabelled"}),
    ],
)
def test_a_method_reads_what_its_targets_and_centre_are_made_of(name, settings, searched, more) -> None:
    assert METHODS[name].reads(settings, searched) == {"train"} | more


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"peft"}))
def test_label_words_are_checked_for_every_method_that_reads_their_rows(name: str) -> None:
    found = resolve(MethodConfig(method=name))
    without = {"linear-probe", "centroid", "knn"}
    assert found.reads_label_words == (name not in without)


@pytest.mark.parametrize(
    ("settings", "needs"), [({}, {"spectrum", "unlabelled"}), ({"targets": "head", "centre": "none"}, {"head"})]
)
def test_centred_affinity_reads_no_label(settings, needs) -> None:
    assert METHODS["affinity-centred"].reads(settings, ()) == needs


def test_the_papers_calibration_has_the_papers_number_of_weights() -> None:
    """33/8 d² (section 4.4), which counts neither biases nor the layer norm's 2d."""
    width = 32
    rows = Labelled(torch.randn(12, width), torch.arange(12) % 2)
    materials = SimpleNamespace(
        stored_train=rows,
        stored_validation=rows,
        labels=["a", "b"],
        device=torch.device("cpu"),
        class_basis=torch.eye(2, width),
        other_basis=Vocabulary(torch.eye(width)[2:]),
    )
    method = METHODS["calibration-paper"]
    fitted = method.fit(method.Settings.model_validate({"epochs": 1}), materials, 0)
    assert method.trained_weights(fitted) == 33 * width**2 // 8 + 2 * width
