"""Calibrators trained side by side: each must come out as if it were alone, and as a plain loop makes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack, structure
from vocabsem_core.calibration.modules import (
    CalibrationSettings,
    Labelled,
    Weights,
    calibrated_logits,
    residual,
    untrained,
)
from vocabsem_core.calibration.residual import as_stored, for_training, residual_similarities
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.errors import InputError
from vocabsem_core.semantics.affinity import semantic_logits

WIDTH, CLASSES = 32, 4
BASIS = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(5)).double()
OTHERS = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(6)).double()
RESIDUAL = CalibrationSettings(rank=6, batch_size=16, epochs=6, learning_rate=1e-2, patience=None)
PAPER = replace(RESIDUAL, module="paper", loss="vocabulary", temperature=1.0, learn_temperature=False, dropout=0.0)


def toy(seed: int, count: int = 50) -> Labelled:
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(7)).double()
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)).double()
    return Labelled(3 + centres[labels] + noise, labels)  # a large common mean, as language models' states have


TRAIN, VALIDATION = toy(0), toy(1, 30)


def beside(rows: Labelled, seed: int, width: int = 20) -> Labelled:
    """States of another layer, which tell of the class too, beside the rows' own."""
    noise = torch.randn(len(rows.labels), width, generator=torch.Generator().manual_seed(seed)).double()
    return Labelled(torch.cat([rows.states, 5 + noise + rows.labels.unsqueeze(1)], dim=1), rows.labels)


DEEP = beside(TRAIN, 2), beside(VALIDATION, 3)


def plain_loop(
    settings: CalibrationSettings, seed: int, data: tuple[Labelled, Labelled] = (TRAIN, VALIDATION)
) -> tuple[dict[str, Tensor], list[float]]:
    """One calibrator by torch's own optimizer and layers; the same random streams, as the documentation states them.

    Returns the weights after the last epoch, and every epoch's validation loss.
    """
    train, validation = data
    streams = [torch.Generator().manual_seed(number) for number in (*(seed * 3 + use for use in range(3)), -1 - seed)]
    mean, deviation = train.states.mean(dim=0), train.states.std(dim=0, correction=0)
    weights = untrained(settings, mean, deviation, streams[0], BASIS)
    fixed = {"mean", "deviation"} if settings.learn_temperature else {"mean", "deviation", "log_temperature"}
    for name in weights.keys() - fixed:
        weights[name].requires_grad_()
    optimizer = torch.optim.AdamW(
        [w for w in weights.values() if w.requires_grad], lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    losses = []
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(train.states), generator=streams[1]).split(settings.batch_size):
            if settings.module == "paper":
                moved = plain_paper(train.states[rows], weights)
            else:
                w, read = weights, train.states[rows]
                z = (read - mean) / deviation
                if settings.input_dropout:
                    drawn = torch.rand(z.shape, generator=streams[3], dtype=torch.float64)
                    z = z * (drawn >= settings.input_dropout) / (1 - settings.input_dropout)
                hidden = functional.gelu(functional.linear(z, w["down.weight"], w["down.bias"]))
                if settings.dropout:
                    drawn = torch.rand(settings.rank, len(rows), generator=streams[2], dtype=torch.float64).T
                    hidden = hidden * (drawn >= settings.dropout) / (1 - settings.dropout)
                moves = functional.linear(hidden, w["up.weight"], w["up.bias"])
                moved = read[:, :WIDTH] + deviation[:WIDTH] * moves
            optimizer.zero_grad()
            plain_loss(moved, train.labels[rows], weights, settings).backward()
            optimizer.step()
        with torch.no_grad():
            module = plain_paper if settings.module == "paper" else residual
            basis = weights.get("learned_targets", BASIS)
            logits = semantic_logits(
                module(validation.states, weights), basis, settings.similarity, weights["log_temperature"].exp()
            )
            losses.append(float(functional.cross_entropy(logits, validation.labels)))
    return {name: value.detach() for name, value in weights.items()}, losses


def plain_paper(states: Tensor, w: Weights) -> Tensor:
    """The paper's module by torch's own layers."""
    squeezed = functional.relu(functional.linear(states, w["attention.squeeze"]))
    attended = states * (2 * functional.linear(squeezed, w["attention.expand"]))
    moved = functional.linear(functional.relu(functional.linear(attended, w["mlp.up"])), w["mlp.down"])
    return functional.layer_norm(moved, moved.shape[-1:], w["norm.weight"], w["norm.bias"])


def plain_loss(moved: Tensor, labels: Tensor, weights: Weights, settings: CalibrationSettings) -> Tensor:
    if settings.loss == "sm-gt":
        return (1 - functional.cosine_similarity(moved, BASIS[labels])).mean()
    basis = weights.get("learned_targets", BASIS)
    targets = torch.cat([basis, OTHERS]) if settings.loss == "vocabulary" else basis
    logits = semantic_logits(moved, targets, settings.similarity, weights["log_temperature"].exp())
    return functional.cross_entropy(logits, labels)


def assert_equal_weights(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], within: float = 1e-9, **wider: float
) -> None:
    """`wider`: the tolerance of single weights, their dots written as underscores."""
    assert found.keys() == expected.keys()
    for name in found:
        atol = wider.get(name.replace(".", "_"), within)
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=atol, msg=name)


def fit(lanes: list[Lane], **arguments: Any) -> list[Any]:
    return fit_pack(TRAIN, VALIDATION, BASIS, lanes, Vocabulary(OTHERS), **arguments)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("loss", ["labels", "vocabulary", "sm-gt"])
@pytest.mark.parametrize("base", [RESIDUAL, PAPER], ids=["residual", "paper"])
def test_a_lane_is_what_a_plain_loop_makes(base: CalibrationSettings, loss: Any, similarity: Any) -> None:
    settings = replace(base, loss=loss, similarity=similarity, temperature=0.7)
    (found,) = fit([Lane(settings, 3)])
    weights, losses = plain_loop(settings, 3)
    # AdamW enlarges the rounding of gradients near zero: that of the paper's squeeze is zero where one of its two units
    # is on, for the layer's normalisation takes a common factor out again.
    assert_equal_weights(found.weights, weights, within=1e-8, attention_squeeze=1e-6)
    assert found.validation_loss == pytest.approx(losses[-1], abs=1e-9)
    assert (found.epoch, found.epochs) == (settings.epochs, settings.epochs)


@pytest.mark.parametrize("learned", [True, False])
def test_learned_and_fixed_temperatures_are_a_plain_loops(learned: bool) -> None:
    settings = replace(RESIDUAL, learn_temperature=learned)
    assert_equal_weights(fit([Lane(settings, 0)])[0].weights, plain_loop(settings, 0)[0])


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "dot"])
def test_several_layers_side_by_side_and_learned_targets_are_a_plain_loops(learned: bool, similarity: Any) -> None:
    settings = replace(RESIDUAL, learn_targets=learned, similarity=similarity, input_dropout=0.4)
    lanes = [Lane(settings, 0), Lane(replace(settings, learning_rate=3e-3), 1)]
    # Dropout of what is read leaves small gradients, and AdamW enlarges their rounding.
    found = fit_pack(*DEEP, BASIS, lanes)
    for lane, one in zip(lanes, found, strict=True):
        weights, losses = plain_loop(lane.settings, lane.seed, DEEP)
        assert_equal_weights(one.weights, weights, within=1e-7)
        assert one.validation_loss == pytest.approx(losses[-1], rel=1e-7)
        logits = calibrated_logits(DEEP[1].states, BASIS, lane.settings, one.weights)
        assert float(functional.cross_entropy(logits, VALIDATION.labels)) == pytest.approx(losses[-1], rel=1e-7)


def test_dropout_of_what_is_read_does_not_depend_on_neighbours() -> None:
    """Not on one of the same seed, with which the factors are shared, nor on how many there are."""
    one = Lane(replace(RESIDUAL, input_dropout=0.5, dropout=0.0), 1)
    same_seed, other_seed = Lane(replace(one.settings, dropout=0.4), 1), Lane(replace(one.settings, epochs=2), 2)
    shares = [Lane(replace(one.settings, input_dropout=share, epochs=3), 1) for share in (0.0, 0.8)]
    (alone,) = fit([one])
    for beside_it in ([same_seed, other_seed], [same_seed], shares, [*shares, other_seed]):
        assert_equal_weights(fit([one, *beside_it])[0].weights, alone.weights)
    for share, found in zip(shares, fit([one, *shares])[1:], strict=True):
        assert_equal_weights(found.weights, fit([share])[0].weights)


numbers = st.builds(
    lambda rate, decay, temperature, dropout, epochs, patience, seed: Lane(
        replace(
            RESIDUAL,
            learning_rate=rate,
            weight_decay=decay,
            temperature=temperature,
            dropout=dropout,
            epochs=epochs,
            patience=patience,
        ),
        seed,
    ),
    st.floats(1e-4, 0.1),
    st.floats(0, 1),
    st.floats(0.05, 2),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.integers(1, 5),
    st.sampled_from([None, 1, 2]),
    st.integers(0, 2),
)


@examples(max_examples=20)
@given(lanes=st.lists(numbers, min_size=2, max_size=5), base=st.sampled_from([RESIDUAL, PAPER]))
def test_a_lane_does_not_depend_on_its_neighbours(lanes: list[Lane], base: CalibrationSettings) -> None:
    shape = {name: getattr(base, name) for name in ("module", "loss", "learn_temperature")}
    lanes = [replace(one, settings=replace(one.settings, **shape)) for one in lanes]
    for found, own in zip(fit(lanes), lanes, strict=True):
        alone = fit([own])[0]
        assert_equal_weights(found.weights, alone.weights)
        assert (found.epoch, found.epochs) == (alone.epoch, alone.epochs)


def test_in_float32_the_losses_of_a_pack_are_those_of_lanes_alone() -> None:
    def single(rows: Labelled) -> Labelled:
        return Labelled(rows.states.float(), rows.labels)

    lanes = [Lane(replace(RESIDUAL, learning_rate=rate, epochs=20), seed) for rate in (1e-3, 1e-2) for seed in (0, 1)]
    pack = fit_pack(single(TRAIN), single(VALIDATION), BASIS.float(), lanes)
    for found, own in zip(pack, lanes, strict=True):
        (alone,) = fit_pack(single(TRAIN), single(VALIDATION), BASIS.float(), [own])
        assert isinstance(found, type(alone))
        assert found.validation_loss == pytest.approx(alone.validation_loss, abs=1e-3)


def test_a_lane_that_diverges_fails_alone_with_its_settings() -> None:
    good, bad = Lane(RESIDUAL, 0), Lane(replace(RESIDUAL, learning_rate=1e200), 0)
    first, failed, last = fit([good, bad, Lane(RESIDUAL, 1)])
    assert isinstance(failed, InputError)
    assert "learning_rate=1e+200" in str(failed)
    assert_equal_weights(first.weights, fit([good])[0].weights)
    assert math.isfinite(last.validation_loss)


def test_a_lane_that_the_watcher_drops_ends_there_and_the_others_go_on() -> None:
    seen: list[tuple[int, list[int]]] = []

    def watch(epoch: int, losses: Mapping[int, float]) -> set[int]:
        seen.append((epoch, sorted(losses)))
        return {1} if epoch == 2 else set()

    found = fit([Lane(RESIDUAL, seed) for seed in range(3)], watch=watch)
    assert [entry.epochs for entry in found] == [6, 2, 6]
    assert seen[:3] == [(1, [0, 1, 2]), (2, [0, 1, 2]), (3, [0, 2])]
    assert_equal_weights(found[2].weights, fit([Lane(RESIDUAL, 2)])[0].weights)


def test_the_watcher_is_told_the_losses_of_a_plain_loop() -> None:
    told: list[float] = []
    fit([Lane(RESIDUAL, 0)], watch=lambda _, losses: told.append(losses[0]) or set())
    assert told == pytest.approx(plain_loop(RESIDUAL, 0)[1], abs=1e-9)


@pytest.mark.parametrize(
    "other",
    [
        replace(RESIDUAL, rank=7),
        replace(RESIDUAL, similarity="dot"),
        replace(RESIDUAL, loss="sm-gt"),
        replace(RESIDUAL, batch_size=8),
        replace(RESIDUAL, learn_temperature=False),
        replace(RESIDUAL, module="paper"),
    ],
)
def test_lanes_of_several_structures_are_no_pack(other: CalibrationSettings) -> None:
    assert structure(other) != structure(RESIDUAL)
    with pytest.raises(InputError, match="several structures"):
        fit([Lane(RESIDUAL, 0), Lane(other, 0)])


class Part:
    """States that are read row by row."""

    def __init__(self, states: Tensor) -> None:
        self.shape, self.dtype, self.read, self._states = states.shape, states.dtype, 0, states

    def __getitem__(self, rows: Tensor) -> Tensor:
        self.read = max(self.read, rows.numel())
        return self._states[rows]


def test_states_that_stay_in_their_file_give_the_same_and_are_read_in_parts() -> None:
    stored = Part(TRAIN.states)
    (found,) = fit_pack(Labelled(stored, TRAIN.labels), VALIDATION, BASIS, [Lane(RESIDUAL, 0)])
    assert_equal_weights(found.weights, fit([Lane(RESIDUAL, 0)])[0].weights, within=0.0)


@pytest.mark.parametrize("similarity", ["cosine", "euclidean", "dot"])
@pytest.mark.parametrize("shared", [True, False])
def test_similarities_without_the_moved_states_are_those_of_the_moved_states(shared: bool, similarity: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, deviation = TRAIN.states.mean(dim=0), TRAIN.states.std(dim=0)
    each = [untrained(RESIDUAL, mean, deviation, generator, BASIS) for _ in range(3)]
    for weights in each:
        for name in ("up.weight", "up.bias"):
            weights[name] = torch.randn(weights[name].shape, generator=generator).double()
    stacked = {name: torch.stack([weights[name] for weights in each]) for name in each[0]}
    stacked |= {"mean": mean, "deviation": deviation}
    states = VALIDATION.states if shared else torch.stack([VALIDATION.states + lane for lane in range(3)])
    inside = for_training(stacked)
    assert_equal_weights(as_stored(inside), stacked, within=0.0)
    found = residual_similarities(states, inside, None, None, BASIS, similarity)
    for number, weights in enumerate(each):
        own = states if shared else states[number]
        expected = semantic_logits(residual(own, weights), BASIS, similarity)
        torch.testing.assert_close(found[number].T, expected, rtol=1e-9, atol=1e-9)
