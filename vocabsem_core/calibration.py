"""Semantic calibration: a small module moves frozen states towards their labels' basis rows (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from vocabsem_core.affinity import Similarity, semantic_logits
from vocabsem_core.errors import InputError

Loss = Literal["labels", "vocabulary", "sm-gt"]


@dataclass(frozen=True)
class CalibrationSettings:
    """How a calibrator is built and trained.

    Attributes:
        module: "residual" (ours) or "paper".
        rank: hidden width of the residual module.
        loss: cross-entropy over the task's labels, over the whole vocabulary, or 1 - cosine to the true row (sm-gt).
        similarity: of calibrated states to the basis, in training and prediction.
        temperature: the logits' divisor, or its start where it is learned.
        learn_temperature: whether training moves it.
        dropout: on the residual module's hidden units.
        learning_rate, weight_decay: of AdamW.
        batch_size: rows a step.
        epochs: at most.
        patience: epochs without a lower validation loss before training stops; None: all epochs, last weights.
    """

    module: Literal["residual", "paper"] = "residual"
    rank: int = 64
    loss: Loss = "labels"
    similarity: Similarity = "cosine"
    temperature: float = 0.1
    learn_temperature: bool = True
    dropout: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 128
    epochs: int = 100
    patience: int | None = 10


@dataclass(frozen=True)
class Labelled:
    """States with their class numbers."""

    states: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]


class ResidualCalibrator(nn.Module):
    """h + s ⊙ U dropout(gelu(V z + b)), z the standardised state, s its deviation by dimension (ours).

    U starts at zero, so the untrained module is the identity.
    """

    def __init__(self, width: int, settings: CalibrationSettings) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.down = nn.Linear(width, settings.rank)
        self.up = nn.Linear(settings.rank, width)
        self.dropout = nn.Dropout(settings.dropout)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def measure(self, states: Float[Tensor, "n d"]) -> None:
        """Take the standardisation from the training states."""
        self.mean = states.mean(dim=0)
        self.deviation = states.std(dim=0, correction=0).clamp_min(1e-6)

    def forward(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        hidden = functional.gelu(self.down((states - self.mean) / self.deviation))
        return states + self.deviation * self.up(self.dropout(hidden))


class PaperCalibrator(nn.Module):
    """λ(h) = LN(MLP(h ⊙ CA(h))) (paper, equations 1 and 2).

    The paper leaves open (our choices): CA is one shared bottleneck d -> d/16 -> d; average and maximum pooling of a
    single vector are the vector itself, so CA(h) = 2 Bn(h); the MLP is d -> 2d -> d; ReLU; no biases beside LN's. That
    gives the paper's 33/8 d² weights.
    """

    def __init__(self, width: int, settings: CalibrationSettings) -> None:
        super().__init__()
        squeezed = max(1, width // 16)
        self.attention = nn.Sequential(
            nn.Linear(width, squeezed, bias=False), nn.ReLU(), nn.Linear(squeezed, width, bias=False)
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width, bias=False), nn.ReLU(), nn.Linear(2 * width, width, bias=False)
        )
        self.norm = nn.LayerNorm(width)

    def measure(self, states: Float[Tensor, "n d"]) -> None:
        """The paper standardises nothing."""

    def forward(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return self.norm(self.mlp(states * 2 * self.attention(states)))


def calibrator(width: int, settings: CalibrationSettings) -> ResidualCalibrator | PaperCalibrator:
    """An untrained calibrator; its weights come from torch's generator."""
    return ResidualCalibrator(width, settings) if settings.module == "residual" else PaperCalibrator(width, settings)


@dataclass(frozen=True)
class Calibration:
    """A trained calibrator.

    Attributes:
        weights: the module's state, with "log_temperature".
        validation_loss: cross-entropy over the task's labels, of the weights kept.
        epoch: the epoch whose weights were kept, from 1; 0 is the untrained module.
    """

    weights: dict[str, Tensor]
    validation_loss: float
    epoch: int


def fit_calibration(
    train: Labelled,
    validation: Labelled,
    basis: Float[Tensor, "c d"],
    settings: CalibrationSettings,
    seed: int,
    vocabulary: Float[Tensor, "v d"] | None = None,
) -> Calibration:
    """Train a calibrator on states towards their labels' basis rows; the language model is not touched.

    Args:
        basis: the row of each class.
        vocabulary: the other rows of the basis, for the loss over the whole vocabulary; not used by the other losses.

    Raises InputError where a loss is not finite, naming the settings.
    """
    with _seeded(seed):
        module = calibrator(train.states.shape[1], settings)
        module.measure(train.states)
        log_temperature = nn.Parameter(torch.tensor(float(settings.temperature)).log())
        loss_of = _loss(basis, vocabulary, settings)
        trained = [*module.parameters()] + ([log_temperature] if settings.learn_temperature else [])
        optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)

        def kept(epoch: int) -> Calibration:
            weights = {**module.state_dict(), "log_temperature": log_temperature.detach()}
            loss = _validation_loss(module, log_temperature, validation, basis, settings)
            return Calibration({name: tensor.clone() for name, tensor in weights.items()}, loss, epoch)

        best = kept(0)
        for epoch in range(1, settings.epochs + 1):
            module.train()
            for rows in torch.randperm(len(train.states)).split(settings.batch_size):
                loss = loss_of(module(train.states[rows]), train.labels[rows], log_temperature.exp())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            now = kept(epoch)
            if not torch.isfinite(torch.tensor(now.validation_loss)):
                raise InputError(f"the loss is not finite after epoch {epoch} with {settings}; lower the learning rate")
            if settings.patience is None or now.validation_loss < best.validation_loss:
                best = now
            elif epoch - best.epoch >= settings.patience:
                break
    return best


@torch.inference_mode()
def calibrated_logits(
    states: Float[Tensor, "n d"], basis: Float[Tensor, "c d"], settings: CalibrationSettings, weights: dict[str, Tensor]
) -> Float[Tensor, "n c"]:
    """Semantic logits of calibrated states over the task's labels."""
    with torch.device("meta"):  # the weights are given: none are drawn
        module = calibrator(states.shape[1], settings)
    module.load_state_dict({name: tensor for name, tensor in weights.items() if name != "log_temperature"}, assign=True)
    return semantic_logits(module.eval()(states), basis, settings.similarity, weights["log_temperature"].exp())


def _loss(
    basis: Float[Tensor, "c d"], vocabulary: Float[Tensor, "v d"] | None, settings: CalibrationSettings
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if settings.loss == "sm-gt":
        return lambda states, labels, _: (1 - functional.cosine_similarity(states, basis[labels])).mean()
    if settings.loss == "vocabulary":
        if vocabulary is None:
            raise InputError("loss `vocabulary` needs the whole basis; it was given the task's rows alone")
        targets = torch.cat([basis, vocabulary])
    else:
        targets = basis
    return lambda states, labels, temperature: functional.cross_entropy(
        semantic_logits(states, targets, settings.similarity, temperature), labels
    )


@torch.no_grad()
def _validation_loss(
    module: nn.Module, log_temperature: Tensor, rows: Labelled, basis: Tensor, settings: CalibrationSettings
) -> float:
    logits = semantic_logits(module.eval()(rows.states), basis, settings.similarity, log_temperature.exp())
    return float(functional.cross_entropy(logits, rows.labels))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's generator at `seed` within, as before after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
