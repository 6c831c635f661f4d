"""Calibrators under training side by side: their weights, and an epoch of all of them as one batched computation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.calibration.adamw import AdamW
from vocabsem_core.calibration.modules import (
    LEARNED,
    MEASURED,
    CalibrationSettings,
    Labelled,
    Weights,
    paper,
    residual,
    untrained,
)
from vocabsem_core.calibration.residual import as_stored, for_training, residual_similarities
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.names import Similarity
from vocabsem_core.numerics.ticks import tick
from vocabsem_core.semantics.affinity import similarities
from vocabsem_core.semantics.centring import States

_LOOKED_AT = 16  # rows that tell in every epoch whether an estimate is good enough
_TEMPERATURE = "log_temperature"  # the last of every module's weights
Dropout = tuple[Tensor | None, Tensor | None]  # factors of what the residual module reads, and of its hidden units
_NO_DROPOUT: Dropout = (None, None)


@dataclass(frozen=True)
class Lane:
    """One calibrator to train."""

    settings: CalibrationSettings
    seed: int


class Batch:
    """The lanes still under training. No arithmetic mixes them, and each draws from streams of its own seed.

    Attributes:
        numbers: the lanes, by their place in the batch.
        flat: [lanes, weights], all trained weights of a lane in one row.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        measured: tuple[Tensor, Tensor],
        basis: Float[Tensor, "c d"],
        vocabulary: Vocabulary | None,
    ) -> None:
        """`measured`: mean and deviation of the training rows, by dimension. Training runs on the device of `basis`.

        `vocabulary`: the other rows of the basis, for the loss over all of them.
        """
        self.numbers, device = list(range(len(lanes))), basis.device
        self._settings, self._device, self._vocabulary = lanes[0].settings, device, vocabulary
        summed = vocabulary is not None and vocabulary.is_summed(self._settings.similarity)
        self._summed = torch.full((len(lanes),), summed)  # lanes for which nothing of the vocabulary is estimated
        self._seeds = [lane.seed for lane in lanes]
        self._orders = {seed: _generator(seed, "order") for seed in self._seeds}
        self._dropouts = {seed: _generator(seed, "dropout") for seed in self._seeds}
        self._input_dropouts = {seed: _generator(seed, "input dropout") for seed in self._seeds}
        starts = [untrained(lane.settings, *measured, _generator(lane.seed, "weights"), basis) for lane in lanes]
        if self._settings.module == "residual":
            starts = [for_training(start) for start in starts]
        self._measured = {name: starts[0].pop(name).to(device) for name in MEASURED if name in starts[0]}
        self._shapes = {name: starts[0][name].shape for name in starts[0]}
        self.flat = torch.stack([torch.cat([s[name].flatten() for name in self._shapes]) for s in starts]).to(device)
        fixed = not self._settings.learn_temperature or self._settings.loss == "sm-gt"
        self._trained = [name for name in self._shapes if not (fixed and name == _TEMPERATURE)]
        self._count = self.flat.shape[1] - fixed
        rates = self._column([lane.settings.learning_rate for lane in lanes])
        decays = self._column([lane.settings.weight_decay for lane in lanes])
        self._optimizer = AdamW(self.flat[:, : self._count], rates, decays)
        self._dropout = self._column([lane.settings.dropout for lane in lanes])
        shares = [lane.settings.input_dropout for lane in lanes]
        self._unread, self._read = self._column(shares), self._column([1 - share for share in shares])
        self._share_memory()

    def _column(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=self.flat.dtype, device=self._device).unsqueeze(1)

    def _share_memory(self) -> None:
        """Give every weight a leaf of the graph of its own, that is a part of `flat`: their gradients are no copies."""
        self._weights = self._named(self.flat)
        for name in self._trained:
            self._weights[name] = self._weights[name].detach().requires_grad_()
        self._gradient = torch.empty_like(self.flat[:, : self._count])

    def calibrator(self, flat: Float[Tensor, " weights"]) -> Weights:
        """The module that a row of `flat` is, as it is stored."""
        named = self._named(flat)
        named = as_stored(named) if self._settings.module == "residual" else named
        return {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in named.items()}

    def _named(self, flat: Tensor) -> Weights:
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
        self.flat, self._dropout = self.flat[places], self._dropout[places]
        self._unread, self._read, self._summed = self._unread[places], self._read[places], self._summed[places]
        self._optimizer.keep(places, self.flat[:, : self._count])
        self._share_memory()

    @torch.no_grad()
    def look_at_estimates(self, train: Labelled[States]) -> None:
        """Lanes whose estimate of the sum over the vocabulary is off, on some of the rows, sum it from here on."""
        if self._vocabulary is not None and not self._summed.all():
            some = torch.arange(0, len(train.labels), -(-len(train.labels) // _LOOKED_AT))
            moved = _moved(train.states[some].to(self._device), self._weights, _NO_DROPOUT, self._settings.module)
            temperatures = self._weights[_TEMPERATURE].exp()
            self._summed |= self._vocabulary.off(moved, temperatures)

    def train_epoch(self, train: Labelled[States], targets: Tensor) -> None:
        """Every row once, in an order of each seed's own."""
        seeds = sorted(set(self._seeds))
        orders = {seed: torch.randperm(len(train.labels), generator=self._orders[seed]) for seed in seeds}
        alone = len(seeds) == 1  # then every lane sees the same rows, and they are read once
        order = orders[seeds[0]] if alone else torch.stack([orders[seed] for seed in self._seeds])
        leaves = [self._weights[name] for name in self._trained]
        batches = order.split(self._settings.batch_size, dim=-1)
        for number, rows in enumerate(batches, start=1):
            states, labels = train.states[rows].to(self._device), train.labels[rows].to(self._device)
            dropout = self._read_factors(rows.shape[-1], states.shape[-1]), self._unit_factors(rows.shape[-1])
            loss = self._losses(states, labels.expand(len(self.numbers), -1), targets, dropout).sum()
            gradients = torch.autograd.grad(loss, leaves)
            torch.cat([part.reshape(len(self.numbers), -1) for part in gradients], dim=1, out=self._gradient)
            self._optimizer.step(self._gradient)
            tick(number, len(batches), "batches")

    def _unit_factors(self, rows: int) -> Tensor | None:
        """Dropout's factor for each hidden unit of each lane: 0, or 1 over the share that is kept."""
        if self._settings.module == "paper" or not self._dropout.any():
            return None
        share = self._dropout.unsqueeze(-1)
        return (self._drawn(self._dropouts, (self._settings.rank, rows)) >= share) / (1 - share)

    def _read_factors(self, rows: int, width: int) -> Tensor | None:
        """The same for each number that is read; lanes of one seed and one share have them in common, as the rows."""
        if self._settings.module == "paper" or not self._unread.any():
            return None
        drawn = self._drawn(self._input_dropouts, (rows, width))
        if len(drawn) == 1 and (self._unread == self._unread[0]).all():
            return (drawn[0] >= self._unread[0]) / self._read[0]
        return (drawn >= self._unread.unsqueeze(-1)) / self._read.unsqueeze(-1)

    def _drawn(self, streams: Mapping[int, torch.Generator], shape: tuple[int, int]) -> Tensor:
        """Numbers for each lane; for all lanes at once where they have one seed."""
        drawn = {seed: torch.rand(shape, generator=streams[seed], dtype=self.flat.dtype) for seed in set(self._seeds)}
        return torch.stack([drawn[seed] for seed in (self._seeds if len(drawn) > 1 else drawn)]).to(self._device)

    def _losses(self, states: Tensor, labels: Tensor, targets: Tensor, dropout: Dropout) -> Tensor:
        """The loss that is trained on, a number a lane."""
        settings = self._settings
        if settings.loss == "sm-gt":
            cosines = _similarities(states, self._weights, dropout, targets, settings.module, "cosine")
            return (1 - cosines.gather(1, labels.unsqueeze(1)).squeeze(1)).mean(dim=-1)
        if self._vocabulary is None:
            return _cross_entropy(states, labels, self._weights, dropout, targets, settings).mean(dim=-1)
        temperatures = self._weights[_TEMPERATURE].exp()
        moved, own_rows = _moved(states, self._weights, dropout, settings.module), self._weights.get(LEARNED, targets)
        logits = _compared(moved, own_rows, settings.similarity) / temperatures[:, None, None]
        others = self._vocabulary.log_sums(moved, temperatures, settings.similarity, self._summed)
        own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
        return (torch.logaddexp(logits.logsumexp(dim=1), others) - own).mean(dim=-1)

    @torch.no_grad()
    def validation_losses(self, validation: Labelled[States], basis: Tensor) -> list[float]:
        """Mean cross-entropy over the task's labels, a number a lane; in parts, so that memory follows the lanes."""
        total = torch.zeros(len(self.numbers), dtype=self.flat.dtype, device=self._device)
        for rows in torch.arange(len(validation.labels)).split(self._settings.batch_size):
            states = validation.states[rows].to(self._device)
            labels = validation.labels[rows].to(self._device).expand(len(self.numbers), -1)
            total += _cross_entropy(states, labels, self._weights, _NO_DROPOUT, basis, self._settings).sum(dim=-1)
        return (total / len(validation.labels)).tolist()


def _cross_entropy(
    states: Tensor,
    labels: Tensor,
    weights: Weights,
    dropout: Dropout,
    targets: Tensor,
    settings: CalibrationSettings,
) -> Float[Tensor, "lanes n"]:
    found = _similarities(states, weights, dropout, targets, settings.module, settings.similarity)
    logits = found / weights[_TEMPERATURE].exp()[:, None, None]
    return functional.cross_entropy(logits, labels, reduction="none")


def _similarities(
    states: Tensor, weights: Weights, dropout: Dropout, targets: Tensor, module: str, similarity: Similarity
) -> Float[Tensor, "lanes k n"]:
    if module == "residual":
        return residual_similarities(states, weights, *dropout, weights.get(LEARNED, targets), similarity)
    return _compared(paper(states, weights), targets, similarity)


def _compared(moved: Tensor, targets: Tensor, similarity: Similarity) -> Float[Tensor, "lanes k n"]:
    squares = moved.square().sum(dim=-1, keepdim=True)
    return similarities(moved @ targets.mT, squares, targets.square().sum(dim=-1).unsqueeze(-2), similarity).mT


def _moved(states: Tensor, weights: Weights, dropout: Dropout, module: str) -> Float[Tensor, "lanes n d"]:
    return paper(states, weights) if module == "paper" else residual(states, as_stored(weights), *dropout)


def _generator(seed: int, use: str) -> torch.Generator:
    """A stream of its own for each use: dropout of one lane does not move the order of another with the same seed."""
    if use == "input dropout":  # the youngest: below zero, so that the streams of the others are what they were
        return torch.Generator().manual_seed(-1 - seed)
    uses = ("weights", "order", "dropout")
    return torch.Generator().manual_seed(seed * len(uses) + uses.index(use))
