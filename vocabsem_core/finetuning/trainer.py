"""Finetuning a language model as a classifier by its label words (our choices throughout).

The loss is the cross-entropy of the label words' logits where the prompt's label would stand, the very logits that
zero-shot compares; no other logits are computed. AdamW, a rate that rises and then falls linearly to zero, early
stopping by the validation loss after each epoch, the best epoch's weights kept. A step's batch and its dropout depend
on the step's number and the seed alone, so a fit that was interrupted after an epoch comes to the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import Parameter, functional

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import scale_and_softcap
from vocabsem_core.features.encoder import Encoder, batches
from vocabsem_core.features.heads import OutputHead
from vocabsem_core.finetuning.adapters import use
from vocabsem_core.numerics.checkpoint import below, load_state, optimizer_state, save_state, use_moments
from vocabsem_core.numerics.distributed import sum_over_processes
from vocabsem_core.numerics.memory import tokens_of_a_pass
from vocabsem_core.numerics.ticks import part_of_more, tick

_CLIP = 1.0  # largest norm of a step's gradient
_PART_TOKENS = {"cpu": 4096, "cuda": 16384}  # of a forward pass in training, at most: its activations are kept
_GROUP = 16  # batches whose prompts are sorted by length together, so that little is padding


@dataclass(frozen=True)
class Schedule:
    """How it is trained.

    Attributes:
        learning_rate: the highest.
        weight_decay: of AdamW.
        warmup: share of all steps during which the rate rises.
        batch_size: prompts a step.
        epochs: at most; the rate falls to zero at their end.
        patience: epochs without a lower validation loss before training stops.
    """

    learning_rate: float
    weight_decay: float
    warmup: float
    batch_size: int
    epochs: int
    patience: int


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that share each batch: this one's number, of how many. More than one need torch.distributed."""

    rank: int = 0
    world: int = 1


ALONE = ProcessGroup()


class Prompts:
    """Tokenised prompts, and the token of each where the label would stand; rows can be asked for by number."""

    def __init__(self, ids: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        self.ids, self.positions = list(ids), list(positions)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Tensor, /) -> Prompts:
        wanted = rows.tolist()
        return Prompts([self.ids[row] for row in wanted], [self.positions[row] for row in wanted])

    def parts(self, tokens: int) -> list[list[int]]:
        """Row numbers in batches of at most so many tokens, longest first."""
        return list(batches([len(ids) for ids in self.ids], tokens))


class Classifier:
    """A language model read as a classifier.

    Args:
        model: a transformers language model with its head.
        tokens: for each class, the vocabulary rows that stand for it; its logit is their logits' mean.
        bf16: whether products are taken in bfloat16.
    """

    def __init__(self, model: Any, tokens: Sequence[Sequence[int]], bf16: bool) -> None:
        self.model, self._tokens, self._bf16 = model, [list(rows) for rows in tokens], bf16
        self._encoder = Encoder(model)
        self.part_tokens = min(_PART_TOKENS[model.device.type], tokens_of_a_pass(model.config))

    @property
    def numerics(self) -> dict[str, str]:
        """The precision of the weights, and that of products."""
        weights = str(self.model.dtype).removeprefix("torch.")
        return {"dtype": weights, "products": "bfloat16" if self._bf16 else weights}

    @torch.no_grad()
    def check(self, prompts: Prompts) -> None:
        """Raises InputError for prompts the model cannot read, or where its states cannot be captured."""
        self.model.eval()
        self._encoder.check(prompts.ids, prompts.positions)

    def logits(self, prompts: Prompts) -> Float[Tensor, "n c"]:
        """Class logits of one batch, float32."""
        device = self.model.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self._bf16):
            states = self._encoder.states(prompts.ids, prompts.positions)["head"]
        linear, flat = self.model.get_output_embeddings(), [token for rows in self._tokens for token in rows]
        bias = None if getattr(linear, "bias", None) is None else linear.bias[flat].float()
        head = OutputHead(linear.weight[flat].float(), bias, *scale_and_softcap(self.model.config))
        groups = head.logits(states.float()).split([len(rows) for rows in self._tokens], dim=1)
        return torch.stack([group.mean(dim=1) for group in groups], dim=1)

    @torch.no_grad()
    def scores(self, prompts: Prompts, team: ProcessGroup = ALONE) -> Float[Tensor, "n c"]:
        """Class logits of all prompts in their order, on the CPU; shared out among the processes."""
        self.model.eval()
        found = torch.zeros(len(prompts), len(self._tokens), device=self.model.device)
        done = 0
        for part in prompts.parts(self.part_tokens)[team.rank :: team.world]:
            rows = torch.tensor(part)
            found[rows.to(found.device)] = self.logits(prompts[rows])
            done += len(part)
            tick(done * team.world, len(prompts), "prompts")
        sum_over_processes([found], team.world)
        return found.cpu()


class Finetuning:
    """One fit under way.

    Args:
        classifier: the model, adapted.
        weights: what is trained, by name.
        train, validation: prompts and their class numbers.
        schedule, seed: how.
        team: which part of each batch is this process's.
    """

    def __init__(
        self,
        classifier: Classifier,
        weights: Mapping[str, Parameter],
        train: tuple[Prompts, Int[Tensor, " n"]],
        validation: tuple[Prompts, Int[Tensor, " m"]],
        schedule: Schedule,
        seed: int,
        team: ProcessGroup = ALONE,
    ) -> None:
        self._classifier, self._weights, self._team = classifier, dict(weights), team
        self._train, self._validation, self._schedule, self._seed = train, validation, schedule, seed
        self._optimizer = torch.optim.AdamW(
            list(self._weights.values()), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self._steps_an_epoch = math.ceil(len(train[0]) / schedule.batch_size)
        self.losses: list[float] = []  # of the validation rows, after each epoch
        self.best = self._copied()

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or too many brought nothing."""
        since_best = len(self.losses) - 1 - self.best_epoch if self.losses else 0
        return len(self.losses) >= self._schedule.epochs or since_best >= self._schedule.patience

    @property
    def best_epoch(self) -> int:
        """The number, from 0, of the first epoch with the lowest validation loss."""
        return self.losses.index(min(self.losses))

    def epoch(self) -> float:
        """Train for an epoch; the validation loss after it. Raises InputError where a loss is not a number."""
        first = len(self.losses) * self._steps_an_epoch
        lengths = [len(ids) for ids in self._train[0].ids]
        order = epoch_batches(lengths, self._schedule.batch_size, self._seed, len(self.losses))
        last = f"validation loss {self.losses[-1]:.3f}" if self.losses else ""
        with part_of_more(len(self.losses), self._schedule.epochs, "epochs", note=last):
            for step, rows in enumerate(order, start=first):
                self._check_number(self._advance(step, rows), f"step {step}: the loss")
                tick(step - first + 1, len(order), "steps")
        with part_of_more(len(self.losses) + 1, self._schedule.epochs, "epochs", size=0, note=last):
            found = self._validation_loss()
        self._check_number(found, f"epoch {len(self.losses)}: the validation loss")
        self.losses.append(found)
        if self.best_epoch == len(self.losses) - 1:
            self.best = self._copied()
        return found

    def use_best(self) -> None:
        """Give the model the weights of the best epoch."""
        use(self._weights, self.best)

    def _advance(self, step: int, rows: Int[Tensor, " batch"]) -> float:
        """One step on a batch; its mean loss over all processes."""
        prompts, labels = self._train[0][rows], self._train[1][rows]
        own = torch.arange(len(rows))[self._team.rank :: self._team.world]
        model = self._classifier.model
        device, mine = model.device, prompts[own]
        model.train()
        total = torch.zeros(1, device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(hash((self._seed, step, self._team.rank)))  # of integers: the same in every process
            for part in mine.parts(self._classifier.part_tokens) if len(own) else ():
                places = torch.tensor(part)
                logits = self._classifier.logits(mine[places])
                wanted = labels[own][places].to(device)
                loss = functional.cross_entropy(logits, wanted, reduction="sum") / len(rows)
                loss.backward()
                total += loss.detach()
        for value in self._weights.values():
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        sum_over_processes([total, *(value.grad for value in self._weights.values())], self._team.world)  # type: ignore[list-item]
        torch.nn.utils.clip_grad_norm_(self._weights.values(), _CLIP)
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate(step)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(total)

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        steps = self._schedule.epochs * self._steps_an_epoch
        warmup = max(1, round(self._schedule.warmup * steps))
        rising, falling = (step + 1) / warmup, (steps - step) / max(1, steps - warmup)
        return self._schedule.learning_rate * min(1.0, rising, falling)

    def _validation_loss(self) -> float:
        prompts, labels = self._validation
        return float(functional.cross_entropy(self._classifier.scores(prompts, self._team), labels))

    def _check_number(self, loss: float, what: str) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"{what} is not a number with learning_rate {self._schedule.learning_rate:g}; try a lower one"
            )

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self._weights.items()}

    def save(self, path: Path) -> None:
        """Weights now and at their best, the optimizer's state and the losses. Raises InputError where it cannot."""
        tensors = {f"now/{name}": value for name, value in self._copied().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"adamw/{name}": value for name, value in optimizer_state(self._optimizer).items()}
        save_state(path, tensors, {"fit": self._described(), "losses": json.dumps(self.losses)})

    def load(self, path: Path) -> None:
        """Go on from where it was saved. Raises InputError where that is of another fit, or not whole."""
        tensors, metadata = load_state(path)
        if metadata.get("fit") != self._described():
            raise InputError(
                f"{path}: a checkpoint of another fit, {metadata.get('fit')}; expected {self._described()}"
            )
        use(self._weights, below(tensors, "now"))
        self.best, self.losses = below(tensors, "best"), json.loads(metadata["losses"])
        use_moments(self._optimizer, below(tensors, "adamw"))

    def _described(self) -> str:
        return json.dumps({**asdict(self._schedule), "seed": self._seed, "rows": len(self._train[0])}, sort_keys=True)


def epoch_batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[Int[Tensor, " batch"]]:
    """Every row once, in batches of similar length; their order follows from seed and epoch.

    Args:
        lengths: tokens of each row.
        size: rows of a batch; the last has what is left.
        seed: of the training.
        epoch: from 0.

    Returns:
        Row numbers of each batch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order, known = torch.randperm(len(lengths), generator=generator), torch.tensor(lengths)
    found = [
        batch for group in order.split(_GROUP * size) for batch in group[known[group].argsort(stable=True)].split(size)
    ]
    return [found[place] for place in torch.randperm(len(found), generator=generator).tolist()]
