"""Calibrators trained on a GPU against a plain loop on the processor; and packs that do not fit its memory."""

from dataclasses import replace

import pytest
import torch

from tests.vocabsem_core.calibration.test_batched_training import (
    BASIS,
    OTHERS,
    PAPER,
    RESIDUAL,
    TRAIN,
    VALIDATION,
    plain_loop,
)
from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack
from vocabsem_core.calibration.modules import CalibrationSettings, Labelled, calibrated_logits
from vocabsem_core.calibration.vocabulary import Vocabulary
from workflows.search.trials import within_memory

SETTINGS = {
    "residual": RESIDUAL,
    "dropout on what is read": replace(RESIDUAL, input_dropout=0.2),
    "learned targets": replace(RESIDUAL, learn_targets=True),
    "sm-gt": replace(RESIDUAL, loss="sm-gt"),
    "euclidean": replace(RESIDUAL, similarity="euclidean", temperature=1.0),
    "paper": PAPER,
}


def fitted(lanes, device, data=(TRAIN, VALIDATION), dtype=torch.float64):
    train, validation = (Labelled(rows.states.to(dtype), rows.labels) for rows in data)
    others = Vocabulary(OTHERS.to(device, dtype)) if lanes[0].settings.loss == "vocabulary" else None
    return fit_pack(train, validation, BASIS.to(device, dtype), lanes, others)


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_and_weights_are_those_of_a_plain_loop_on_the_processor(name):
    """In float64, so that nothing but rounding differs; two seeds side by side.

    Not seed 4: 45 of its 50 states start at zero, and there our loop and the plain one differ on any device.
    """
    for seed, found in zip((0, 3), fitted([Lane(SETTINGS[name], seed) for seed in (0, 3)], "cuda"), strict=True):
        weights, losses = plain_loop(SETTINGS[name], seed)
        assert found.validation_loss == pytest.approx(losses[-1], rel=1e-6)
        for key, value in weights.items():
            assert found.weights[key].device.type == "cpu"
            torch.testing.assert_close(found.weights[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_in_float32_lanes_of_many_settings_come_out_as_on_the_processor(name):
    lanes = [Lane(replace(SETTINGS[name], learning_rate=rate, patience=2), 1) for rate in (1e-4, 1e-3, 1e-2)]
    ours, theirs = (fitted(lanes, device, dtype=torch.float32) for device in ("cuda", "cpu"))
    for one, other in zip(ours, theirs, strict=True):
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-3)
        settings, states = SETTINGS[name], VALIDATION.states.float()
        found, expected = (calibrated_logits(states, BASIS.float(), settings, fit.weights) for fit in (one, other))
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_a_pack_that_does_not_fit_the_gpu_is_halved_until_it_does(half_a_gigabyte):
    """Sixty-four calibrators of 1.1 million weights take more than two gigabytes."""
    width, classes = 512, 4
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % classes
    rows = Labelled(torch.randn(64, width, generator=draw) + labels.unsqueeze(1), labels)
    basis = torch.randn(classes, width, generator=draw).to("cuda")
    settings = CalibrationSettings(
        module="paper", dropout=0.0, learn_temperature=False, epochs=1, patience=None, batch_size=64
    )
    tried = []

    def attempt(pack):
        tried.append(len(pack))
        return fit_pack(rows, rows, basis, [Lane(settings, seed) for seed in pack])

    def give_up(one, error):
        raise AssertionError(f"{one}: {error}")

    found = within_memory(range(64), attempt, give_up)
    assert tried[0] == 64
    assert tried[-1] < 64
    assert len(found) == 64
    alone = fit_pack(rows, rows, basis, [Lane(settings, 63)])[0]
    assert found[63].validation_loss == pytest.approx(alone.validation_loss, rel=1e-4)


def test_what_never_fits_is_given_up_and_says_what_torch_said(half_a_gigabyte):
    def attempt(pack):
        return [torch.empty(1 << 30, device="cuda") for _ in pack]

    assert ["out of memory" in told for told in within_memory(range(3), attempt, lambda one, error: error)] == [
        True
    ] * 3
