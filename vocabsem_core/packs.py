"""Training of calibrators, many side by side: one batched computation for settings that differ in numbers alone.

A lane is one calibrator under training. Its result does not depend on its neighbours: every random number comes from
the lane's own seed, and no arithmetic mixes lanes. A lane that is done leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.affinity import Similarity, semantic_logits
from vocabsem_core.calibration import (
    MEASURED,
    Calibration,
    CalibrationSettings,
    Labelled,
    States,
    Weights,
    paper,
    untrained,
)
from vocabsem_core.errors import InputError
from vocabsem_core.residual import residual_similarities

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # AdamW's, as torch has them
_CHUNK = 4096  # rows measured at once
_COPIES = 8  # of a lane's weights: themselves, gradient, two moments, the best, decay, and what a step needs

Watch = Callable[[int, Mapping[int, float]], Collection[int]]  # (epoch, lane -> validation loss) -> lanes to end


@dataclass(frozen=True)
class Lane:
    """One calibrator to train."""

    settings: CalibrationSettings
    seed: int


def structure(settings: CalibrationSettings) -> tuple[Any, ...]:
    """What lanes of a pack must have in common."""
    s = settings
    rank = s.rank if s.module == "residual" else 0
    return (s.module, rank, s.loss, s.similarity, s.learn_temperature, s.batch_size)


def lane_bytes(settings: CalibrationSettings, width: int, targets: int) -> int:
    """About how much memory a lane takes in a pack, against `targets` basis rows: weights, AdamW's, activations."""
    zeros = torch.zeros(width)
    weights = sum(w.numel() for w in untrained(settings, zeros, zeros + 1, torch.Generator()).values())
    moved = 8 * settings.rank if settings.module == "residual" else 12 * width
    return 4 * (_COPIES * weights + settings.batch_size * (moved + 3 * width + 4 * targets))


def fit_calibration(
    train: Labelled[States],
    validation: Labelled[States],
    basis: Float[Tensor, "c d"],
    settings: CalibrationSettings,
    seed: int,
    vocabulary: Float[Tensor, "v d"] | None = None,
) -> Calibration:
    """Train one calibrator; see `fit_pack`. Raises InputError where a loss is not finite, naming the settings."""
    (found,) = fit_pack(train, validation, basis, [Lane(settings, seed)], vocabulary)
    if isinstance(found, InputError):
        raise found
    return found


def fit_pack(
    train: Labelled[States],
    validation: Labelled[States],
    basis: Float[Tensor, "c d"],
    lanes: Sequence[Lane],
    vocabulary: Float[Tensor, "v d"] | None = None,
    watch: Watch | None = None,
) -> list[Calibration | InputError]:
    """Train calibrators on states towards their labels' basis rows; the language model is not touched.

    Args:
        basis: the row of each class; training runs on its device.
        lanes: what to train; all of one `structure`.
        vocabulary: the other rows of the basis, for the loss over the whole vocabulary; not used by the other losses.
        watch: told every lane's validation loss after each epoch; the lanes it names end there.

    Returns an entry a lane: its calibrator, or an InputError that names its settings where a loss was not finite.
    Raises InputError for lanes of several structures, or where the loss needs a vocabulary and none is given.
    """
    if len({structure(lane.settings) for lane in lanes}) != 1:
        raise InputError(f"a pack of {len(lanes)} lanes of several structures; expected one")
    targets = _targets(basis, vocabulary, lanes[0].settings).clone()  # autograd refuses tensors of inference mode
    batch = _Batch(lanes, train, basis.device)
    kept, losses = batch.flat.clone(), batch.validation_losses(validation, basis)
    best = dict.fromkeys(range(len(lanes)), 0)  # lane -> the epoch whose weights are kept
    found: dict[int, Calibration | InputError] = {}
    epoch = 0
    while batch.numbers:
        epoch += 1
        batch.train_epoch(train, targets)
        now = batch.validation_losses(validation, basis)
        dropped = watch(epoch, dict(zip(batch.numbers, now, strict=True))) if watch else ()
        staying = []
        for place, loss in enumerate(now):
            number, settings = batch.numbers[place], lanes[batch.numbers[place]].settings
            if not math.isfinite(loss):
                found[number] = InputError(
                    f"the loss is not finite after epoch {epoch} with {settings}; lower the learning rate"
                )
                continue
            if settings.patience is None or loss < losses[number]:
                kept[number], losses[number], best[number] = batch.flat[place], loss, epoch
            tired = settings.patience is not None and epoch - best[number] >= settings.patience
            if number not in dropped and not tired and epoch < settings.epochs:
                staying.append(place)
            else:
                weights = {name: value.cpu().clone() for name, value in batch.named(kept[number]).items()}
                found[number] = Calibration(weights, losses[number], best[number], epoch)
        batch.keep(staying)
    return [found[number] for number in range(len(lanes))]


def _targets(basis: Tensor, vocabulary: Tensor | None, settings: CalibrationSettings) -> Tensor:
    """The basis rows that the loss compares with; the first are the classes' own."""
    if settings.loss != "vocabulary":
        return basis
    if vocabulary is None:
        raise InputError("loss `vocabulary` needs the whole basis; it was given the task's rows alone")
    return torch.cat([basis, vocabulary])


class _Batch:
    """The lanes still under training, all trained weights of a lane in one row of `flat`.

    Attributes:
        numbers: the lanes, by their place in the batch.
        flat: [lanes, weights].
    """

    def __init__(self, lanes: Sequence[Lane], train: Labelled[States], device: torch.device) -> None:
        self.numbers = list(range(len(lanes)))
        self._settings, self._device = lanes[0].settings, device
        measured = _measured(train.states)
        self._seeds = [lane.seed for lane in lanes]
        self._orders = {seed: _generator(seed, "order") for seed in self._seeds}
        self._dropouts = {seed: _generator(seed, "dropout") for seed in self._seeds}
        starts = [untrained(lane.settings, *measured, _generator(lane.seed, "weights")) for lane in lanes]
        self._measured = {name: starts[0].pop(name).to(device) for name in MEASURED if name in starts[0]}
        self._shapes = {name: starts[0][name].shape for name in starts[0]}
        self.flat = torch.stack([torch.cat([s[name].flatten() for name in self._shapes]) for s in starts]).to(device)
        self._first, self._second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self._steps = 0
        self._rate = self._column([lane.settings.learning_rate for lane in lanes])
        decay = self._column([lane.settings.weight_decay for lane in lanes])
        self._shrink = (1 - self._rate * decay).repeat(1, self.flat.shape[1])
        if not self._settings.learn_temperature or self._settings.loss == "sm-gt":
            self._shrink[:, -1] = 1.0  # log_temperature, the last, stays as it is
        self._dropout = self._column([lane.settings.dropout for lane in lanes])

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=self.flat.dtype, device=self._device).unsqueeze(1)

    def named(self, flat: Tensor) -> Weights:
        """Weights by name, of one row or of all; leading dimensions as those of `flat`."""
        parts = flat.split([shape.numel() for shape in self._shapes.values()], dim=-1)
        own = {
            name: part.unflatten(-1, shape) if shape else part.squeeze(-1)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        return {**own, **self._measured}

    def keep(self, places: list[int]) -> None:
        """Go on with these alone."""
        if len(places) == len(self.numbers):
            return
        self.numbers = [self.numbers[place] for place in places]
        self._seeds = [self._seeds[place] for place in places]
        for name in ("flat", "_first", "_second", "_rate", "_shrink", "_dropout"):
            setattr(self, name, getattr(self, name)[places])

    def train_epoch(self, train: Labelled[States], targets: Tensor) -> None:
        """Every row once, in an order of each seed's own."""
        seeds = sorted(set(self._seeds))
        orders = {seed: torch.randperm(len(train.labels), generator=self._orders[seed]) for seed in seeds}
        alone = len(seeds) == 1  # then every lane sees the same rows, and they are read once
        order = orders[seeds[0]] if alone else torch.stack([orders[seed] for seed in self._seeds])
        for rows in order.split(self._settings.batch_size, dim=-1):
            states, labels = train.states[rows].to(self._device), train.labels[rows].to(self._device)
            weights = self.named(self.flat.requires_grad_())
            keep = self._kept_units(rows.shape[-1])
            losses = self._losses(states, labels.expand(len(self.numbers), -1), weights, targets, keep)
            (gradient,) = torch.autograd.grad(losses.sum(), self.flat)
            self.flat = self._stepped(self.flat.detach(), gradient)

    def _kept_units(self, rows: int) -> Tensor | None:
        """Dropout's factor for each hidden unit: 0, or 1 over the share that is kept."""
        if self._settings.module == "paper" or not self._dropout.any():
            return None
        shape = (self._settings.rank, rows)
        drawn = {
            seed: torch.rand(shape, generator=self._dropouts[seed], dtype=self.flat.dtype) for seed in set(self._seeds)
        }
        share = self._dropout.unsqueeze(-1)
        return (torch.stack([drawn[seed] for seed in self._seeds]).to(self._device) >= share) / (1 - share)

    def _losses(self, states: Tensor, labels: Tensor, weights: Weights, targets: Tensor, keep: Tensor | None) -> Tensor:
        """The loss that is trained on, a number a lane."""
        settings = self._settings
        if settings.loss == "sm-gt":
            cosines = _similarities(states, weights, keep, targets, settings.module, "cosine")
            return (1 - cosines.gather(1, labels.unsqueeze(1)).squeeze(1)).mean(dim=-1)
        if not settings.learn_temperature:
            weights = {**weights, "log_temperature": weights["log_temperature"].detach()}
        return _cross_entropy(states, labels, weights, keep, targets, settings).mean(dim=-1)

    def _stepped(self, flat: Tensor, gradient: Tensor) -> Tensor:
        """One step of AdamW, each lane with its own rate and decay."""
        self._steps += 1
        self._first.lerp_(gradient, 1 - _BETAS[0])
        self._second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        first, second = (1 - beta**self._steps for beta in _BETAS)
        return flat * self._shrink - self._rate / first * self._first / ((self._second / second).sqrt() + _EPSILON)

    @torch.no_grad()
    def validation_losses(self, validation: Labelled[States], basis: Tensor) -> list[float]:
        """Mean cross-entropy over the task's labels, a number a lane; in parts, so that memory follows the lanes."""
        total = torch.zeros(len(self.numbers), dtype=self.flat.dtype, device=self._device)
        weights = self.named(self.flat)
        for rows in torch.arange(len(validation.labels)).split(self._settings.batch_size):
            states = validation.states[rows].to(self._device)
            labels = validation.labels[rows].to(self._device).expand(len(self.numbers), -1)
            total += _cross_entropy(states, labels, weights, None, basis, self._settings).sum(dim=-1)
        return (total / len(validation.labels)).tolist()


def _cross_entropy(
    states: Tensor,
    labels: Tensor,
    weights: Weights,
    keep: Tensor | None,
    targets: Tensor,
    settings: CalibrationSettings,
) -> Float[Tensor, "lanes n"]:
    similarities = _similarities(states, weights, keep, targets, settings.module, settings.similarity)
    logits = similarities / weights["log_temperature"].exp()[:, None, None]
    return functional.cross_entropy(logits, labels, reduction="none")


def _similarities(
    states: Tensor, weights: Weights, keep: Tensor | None, targets: Tensor, module: str, similarity: Similarity
) -> Float[Tensor, "lanes k n"]:
    if module == "residual":
        return residual_similarities(states, weights, keep, targets, similarity)
    return semantic_logits(paper(states, weights), targets, similarity).mT


def _measured(states: States) -> tuple[Tensor, Tensor]:
    """Mean and deviation by dimension, in the states' dtype on the CPU; summed in float64, a part at a time."""
    rows, width = states.shape
    parts = torch.arange(rows).split(_CHUNK)
    mean = sum((states[part].double().sum(dim=0).cpu() for part in parts), torch.zeros(width).double()) / rows
    squares = ((states[part].double().cpu() - mean).square().sum(dim=0) for part in parts)
    deviation = (sum(squares, torch.zeros(width).double()) / rows).sqrt().clamp_min(1e-6)
    return mean.to(states.dtype), deviation.to(states.dtype)


def _generator(seed: int, use: str) -> torch.Generator:
    """A stream of its own for each use: dropout of one lane does not move the order of another with the same seed."""
    uses = ("weights", "order", "dropout")
    return torch.Generator().manual_seed(seed * len(uses) + uses.index(use))
