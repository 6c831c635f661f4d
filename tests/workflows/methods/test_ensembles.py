"""Fits on several folds: what they are made of, what they predict, and where they are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workflows.methods.inputs.test_states import materials
from workflows.config.compare import MethodConfig
from workflows.config.strict import Strict
from workflows.errors import ConfigError
from workflows.methods.base import Method
from workflows.methods.ensembles import fit_folds, predict_folds, trained_in_folds
from workflows.methods.inputs.states import TaskFeatures
from workflows.methods.registry import method_named
from workflows.methods.resolved import resolve

LABELS = [0, 1] * 10


class Remembers(Method):
    """Learns which rows it was given, and the seed; its scores follow from both."""

    name = "remembers"
    needs = frozenset({"train"})
    Settings = Strict

    def fit(self, settings: Any, materials: TaskFeatures, seed: int) -> dict[str, torch.Tensor]:
        return {"rows": materials.train.states[:, 0], "seed": torch.tensor([float(seed)])}

    def predict(self, settings: Any, fitted: Any, states: torch.Tensor, materials: TaskFeatures) -> torch.Tensor:
        return torch.stack([fitted["rows"].sum() - states[:, 0], fitted["seed"] + states[:, 0]], dim=1) / 50


def test_members_leave_out_other_rows_and_have_seeds_of_their_own(tmp_path: Path) -> None:
    given = materials(tmp_path, LABELS)
    fitted = fit_folds(Remembers(), Strict(), given, seed=3, folds=5)
    kept = [set(fitted[f"fold {fold}/rows"].tolist()) for fold in range(5)]
    everything = set(range(len(LABELS)))
    left_out = [everything - one for one in kept]
    assert sum(map(len, left_out)) == len(everything)
    assert set.union(*left_out) == everything
    assert [int(fitted[f"fold {fold}/seed"]) for fold in range(5)] == [15, 16, 17, 18, 19]
    assert trained_in_folds(Remembers(), fitted, 5) == 5 * 17


def test_a_prediction_is_the_mean_of_the_members_probabilities(tmp_path: Path) -> None:
    given, states = materials(tmp_path, LABELS), torch.arange(6).float().unsqueeze(1)
    fitted = fit_folds(Remembers(), Strict(), given, seed=0, folds=3)
    each = []
    for fold in range(3):
        own = {name.split("/")[1]: value for name, value in fitted.items() if name.startswith(f"fold {fold}/")}
        each.append(Remembers().predict(None, own, states, given).softmax(dim=1))
    found = predict_folds(Remembers(), Strict(), fitted, states, given, folds=3)
    torch.testing.assert_close(found.softmax(dim=1), torch.stack(each).mean(dim=0))


def test_a_member_that_votes_by_rows_has_those_of_its_fold(tmp_path: Path) -> None:
    given = materials(tmp_path, LABELS)
    method, states = method_named("knn"), torch.cat([given.train.states, given.validation.states])
    settings = method.Settings(k=1, distance="euclidean")
    fitted = fit_folds(method, settings, given, seed=0, folds=5)
    each = [method.predict(settings, {}, states, replace(given, fold=fold)).softmax(dim=1) for fold in range(5)]
    assert not torch.equal(each[0], each[1])
    found = predict_folds(method, settings, fitted, states, given, folds=5)
    torch.testing.assert_close(found.softmax(dim=1), torch.stack(each).mean(dim=0))


def test_one_fold_is_the_methods_own_fit(tmp_path: Path) -> None:
    given, states = materials(tmp_path, LABELS), torch.arange(4).float().unsqueeze(1)
    fitted = fit_folds(Remembers(), Strict(), given, seed=3, folds=1)
    own = Remembers().fit(Strict(), given, 3)
    assert fitted.keys() == own.keys()
    assert torch.equal(
        predict_folds(Remembers(), Strict(), fitted, states, given, folds=1),
        Remembers().predict(Strict(), own, states, given),
    )
    assert trained_in_folds(Remembers(), fitted, 1) == 17


@pytest.mark.parametrize(
    "config",
    [{"method": "zero-shot"}, {"method": "lora"}, {"method": "icl"}, {"method": "knn", "demonstrations": "random"}],
    ids=lambda config: config["method"],
)
def test_folds_of_what_has_none_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="folds are for methods that are fitted to training rows alone"):
        resolve(MethodConfig.model_validate({**config, "folds": 2}))


class Certain(Remembers):
    """Sure of the first class beyond what a float32 probability can say."""

    name = "certain"

    def predict(self, settings: Any, fitted: Any, states: torch.Tensor, materials: TaskFeatures) -> torch.Tensor:
        return torch.tensor([[200.0, 0.0]]).repeat(len(states), 1).requires_grad_()


def test_members_that_are_all_certain_leave_no_score_infinite(tmp_path: Path) -> None:
    given, states = materials(tmp_path, LABELS), torch.arange(3).float().unsqueeze(1)
    fitted = fit_folds(Certain(), Strict(), given, seed=0, folds=3)
    found = predict_folds(Certain(), Strict(), fitted, states, given, folds=3)
    torch.testing.assert_close(found, torch.tensor([[0.0, -200.0]]).repeat(3, 1))
    assert not found.requires_grad
