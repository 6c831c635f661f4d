"""The calibrators, and their training on a toy task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack
from vocabsem_core.calibration.modules import (
    CalibrationSettings,
    Labelled,
    Weights,
    calibrated_logits,
    paper,
    residual,
    untrained,
)
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.errors import InputError
from vocabsem_core.semantics.affinity import semantic_logits

WIDTH, CLASSES = 64, 3
BASIS = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(5))
OTHERS = torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(6))
RESIDUAL = CalibrationSettings(rank=8, batch_size=32, epochs=30, learning_rate=1e-2)
PAPER = replace(RESIDUAL, module="paper", loss="vocabulary", temperature=1.0, learn_temperature=False, patience=None)


def toy(seed: int, noise: float = 0.5) -> Labelled:
    """Separable classes whose centres have nothing to do with the basis."""
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(90) % CLASSES
    generator = torch.Generator().manual_seed(seed)
    return Labelled(centres[labels] + noise * torch.randn(90, WIDTH, generator=generator), labels)


TRAIN, VALIDATION = toy(0), toy(1)


def fit(
    settings: CalibrationSettings,
    seed: int = 0,
    train: Labelled = TRAIN,
    validation: Labelled = VALIDATION,
    others: Vocabulary | None = Vocabulary(OTHERS),  # noqa: B008 - never changed
) -> Any:
    (found,) = fit_pack(train, validation, BASIS, [Lane(settings, seed)], others)
    if isinstance(found, InputError):
        raise found
    return found


def loss_of(logits: Tensor, rows: Labelled = VALIDATION) -> float:
    return float(functional.cross_entropy(logits, rows.labels))


def accuracy_of(logits: Tensor) -> float:
    return float((logits.argmax(dim=1) == VALIDATION.labels).float().mean())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def start(settings: CalibrationSettings, width: int = WIDTH) -> Weights:
    generator = torch.Generator().manual_seed(0)
    return untrained(settings, torch.zeros(width), torch.ones(width), generator, torch.zeros(1, width))


def test_the_untrained_residual_module_is_the_identity() -> None:
    assert torch.equal(residual(TRAIN.states, start(RESIDUAL)), TRAIN.states)


def test_a_constant_dimension_keeps_the_residual_module_finite() -> None:
    states = TRAIN.states.clone()
    states[:, 3] = 1000.0
    rows = Labelled(states, TRAIN.labels)
    weights = fit(RESIDUAL, 0, rows, rows).weights
    assert torch.isfinite(calibrated_logits(states, BASIS, RESIDUAL, weights)).all()


def test_a_trained_residual_module_is_its_formula() -> None:
    w = fit(replace(RESIDUAL, epochs=3)).weights
    torch.testing.assert_close(w["mean"], TRAIN.states.mean(dim=0))
    torch.testing.assert_close(w["deviation"], TRAIN.states.std(dim=0, correction=0))
    hidden = functional.gelu((TRAIN.states - w["mean"]) / w["deviation"] @ w["down.weight"].T + w["down.bias"])
    moved = TRAIN.states + w["deviation"] * (hidden @ w["up.weight"].T + w["up.bias"])
    expected = semantic_logits(moved, BASIS, temperature=w["log_temperature"].exp())
    torch.testing.assert_close(calibrated_logits(TRAIN.states, BASIS, RESIDUAL, w), expected)


def test_the_paper_module_is_its_formula() -> None:
    w = start(PAPER)
    attended = TRAIN.states * 2 * (torch.relu(TRAIN.states @ w["attention.squeeze"].T) @ w["attention.expand"].T)
    expected = functional.layer_norm(torch.relu(attended @ w["mlp.up"].T) @ w["mlp.down"].T, [WIDTH])
    torch.testing.assert_close(paper(TRAIN.states, w), expected)


def test_dropout_is_at_work_in_training() -> None:
    assert not same(fit(RESIDUAL).weights, fit(replace(RESIDUAL, dropout=0.0)).weights)


@pytest.mark.parametrize("width", [16, 64, 768])
def test_the_paper_module_has_the_papers_weights_beside_the_norm(width: int) -> None:
    trained = {name: value for name, value in start(PAPER, width).items() if "." in name}
    assert sum(value.numel() for name, value in trained.items() if "norm" not in name) == 33 * width**2 // 8


def test_training_beats_the_untrained_module() -> None:
    untrained = semantic_logits(VALIDATION.states, BASIS, temperature=RESIDUAL.temperature)
    found = fit(RESIDUAL)
    logits = calibrated_logits(VALIDATION.states, BASIS, RESIDUAL, found.weights)
    assert found.epoch > 0
    assert found.validation_loss < 0.5 * loss_of(untrained)
    assert accuracy_of(logits) > 0.95 > accuracy_of(untrained)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "dot"])
def test_every_similarity_learns(similarity: Any) -> None:
    settings = replace(RESIDUAL, similarity=similarity, temperature=1.0)
    untrained = semantic_logits(VALIDATION.states, BASIS, similarity)
    assert fit(settings).validation_loss < loss_of(untrained)


@pytest.mark.parametrize("loss", ["labels", "vocabulary", "sm-gt"])
def test_the_paper_module_learns_with_every_loss(loss: Any) -> None:
    settings = replace(PAPER, loss=loss)
    found = fit(settings)
    assert found.epoch == settings.epochs
    assert accuracy_of(calibrated_logits(VALIDATION.states, BASIS, settings, found.weights)) > 0.95


def test_the_validation_loss_is_that_of_the_weights_kept() -> None:
    found = fit(RESIDUAL)
    logits = calibrated_logits(VALIDATION.states, BASIS, RESIDUAL, found.weights)
    assert found.validation_loss == pytest.approx(loss_of(logits), rel=1e-5)


@pytest.mark.parametrize("settings", [RESIDUAL, PAPER])
def test_a_seed_decides_every_bit(settings: CalibrationSettings) -> None:
    assert same(fit(settings, seed=1).weights, fit(settings, seed=1).weights)
    assert not same(fit(settings, seed=1).weights, fit(settings, seed=2).weights)


def test_training_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    fit(RESIDUAL)
    assert torch.equal(torch.get_rng_state(), before)


def test_prediction_leaves_torchs_generator_alone() -> None:
    weights = fit(RESIDUAL).weights
    before = torch.get_rng_state()
    calibrated_logits(VALIDATION.states, BASIS, RESIDUAL, weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_early_stopping_keeps_the_best_epoch() -> None:
    noisy = toy(2, noise=4.0)  # training soon overfits
    settings = replace(RESIDUAL, learning_rate=0.03, patience=4, dropout=0.0)
    found = fit(settings, validation=noisy)
    every = [fit(replace(settings, epochs=e, patience=None), validation=noisy) for e in range(1, found.epoch + 5)]
    losses = [loss_of(calibrated_logits(noisy.states, BASIS, settings, one.weights), noisy) for one in every]
    assert found.epoch == 1 + losses.index(min(losses)) < settings.epochs
    assert same(found.weights, every[found.epoch - 1].weights)


def test_the_untrained_module_is_kept_where_training_only_harms() -> None:
    wrong = Labelled(BASIS.repeat(30, 1), torch.arange(90) % CLASSES)
    found = fit(replace(RESIDUAL, learning_rate=1.0, temperature=0.01, patience=2), validation=wrong)
    assert found.epoch == 0
    assert torch.equal(found.weights["up.weight"], torch.zeros(WIDTH, RESIDUAL.rank))


@pytest.mark.parametrize("learned", [True, False])
def test_the_temperature_moves_only_where_it_is_learned(learned: bool) -> None:
    found = fit(replace(RESIDUAL, learn_temperature=learned, patience=None))
    assert (float(found.weights["log_temperature"].exp()) == pytest.approx(0.1, rel=1e-6)) is not learned


def test_the_vocabulary_loss_without_other_rows_is_the_loss_over_the_labels() -> None:
    settings = replace(RESIDUAL, loss="vocabulary")
    found = fit(settings, others=Vocabulary(OTHERS[:0]))
    assert same(found.weights, fit(RESIDUAL).weights)


def test_the_vocabulary_loss_needs_the_vocabulary() -> None:
    with pytest.raises(InputError, match="needs the whole basis"):
        fit(PAPER, others=None)


@pytest.mark.parametrize("settings", [RESIDUAL, PAPER])
def test_training_that_diverges_is_refused_with_its_settings(settings: CalibrationSettings) -> None:
    with pytest.raises(InputError, match=r"not finite .*learning_rate=1e\+30.*lower the learning rate"):
        fit(replace(settings, learning_rate=1e30))


@pytest.mark.parametrize("settings", [RESIDUAL, PAPER])
def test_weights_written_and_read_give_the_same_logits(settings: CalibrationSettings, tmp_path: Path) -> None:
    weights = fit(settings).weights
    save_file(weights, tmp_path / "weights.safetensors")
    read = load_file(tmp_path / "weights.safetensors")
    first = calibrated_logits(VALIDATION.states, BASIS, settings, weights)
    assert torch.equal(calibrated_logits(VALIDATION.states, BASIS, settings, read), first)
