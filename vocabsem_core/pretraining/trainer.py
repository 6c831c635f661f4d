"""Pretraining of a small causal language model: the recipe, the order of batches, one step (our choices throughout).

A model of GPT-2's shape; Muon for the blocks' matrices and AdamW for everything else, at one learning rate, which rises
during the warm-up and then falls linearly to zero. A step's batch depends on the step's number alone, so a run that
was interrupted goes on with the very batch that was next, and no batch is seen twice.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.numerics.checkpoint import below, load_state, optimizer_state, save_state, use_moments
from vocabsem_core.numerics.distributed import sum_over_processes
from vocabsem_core.numerics.memory import tokens_of_a_pass
from vocabsem_core.pretraining.kernels import causal_attention, summed_loss
from vocabsem_core.pretraining.muon import Muon

_CLIP = 1.0  # largest norm of a step's gradient
_BETAS = (0.9, 0.95)
_CHUNK_TOKENS = 4096  # tokens of a forward pass on a processor: their activations stay in its cache


@dataclass(frozen=True)
class Recipe:
    """All that decides a model, given the tokens.

    Attributes:
        vocabulary, width, layers, heads, context: the model's shape; `context` in tokens.
        batch_rows: rows of `context` tokens a step.
        steps: of the whole schedule.
        learning_rate: the highest.
        warmup_steps: steps during which the rate rises.
        weight_decay: of matrices, as a share of the rate.
        seed: of weights and order.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    context: int
    batch_rows: int
    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    seed: int

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        rising = (step + 1) / max(1, self.warmup_steps)
        falling = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * min(1.0, rising, falling)


def new_model(recipe: Recipe) -> Any:
    """A GPT2LMHeadModel with seeded weights and a tied head, float32.

    Raises InputError for a width that heads do not divide.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if recipe.width % recipe.heads:
        raise InputError(f"a width of {recipe.width} cannot be cut into {recipe.heads} heads; expected a multiple")
    config = GPT2Config(
        vocab_size=recipe.vocabulary,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        n_positions=recipe.context,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=None,  # END pads and parts documents alike; with an id here transformers wants a mask
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return GPT2LMHeadModel(config)


def rows_of_step(recipe: Recipe, step: int, rows: int) -> Int[Tensor, " batch"]:
    """The numbers of the rows of a step's batch, out of `rows`: every row once an epoch, in another order each."""
    places = range(step * recipe.batch_rows, (step + 1) * recipe.batch_rows)
    return torch.tensor([int(_epoch_order(recipe.seed, place // rows, rows)[place % rows]) for place in places])


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, rows: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Pretraining:
    """A model under training: one process's part of it.

    Args:
        recipe: what is trained.
        rank, world: which part of each batch is this process's, of how many. With more than one, a process group of
            torch.distributed must be there.
        device: where it runs.
        bf16: whether products are taken in bfloat16 (weights and sums stay float32).
        compiled: whether torch.compile is used.

    Raises InputError where a batch cannot be shared evenly.
    """

    def __init__(self, recipe: Recipe, rank: int, world: int, device: torch.device, bf16: bool, compiled: bool) -> None:
        if recipe.batch_rows % world:
            raise InputError(
                f"a batch of {recipe.batch_rows} rows cannot be shared by {world} workers; expected a multiple"
            )
        self.recipe, self.step = recipe, 0
        self._rank, self._world, self._device, self._bf16 = rank, world, device, bf16
        self.model = new_model(recipe).to(device).train()
        if device.type == "cpu":
            _attend_plainly(self.model)
        self._loss = torch.compile(self._summed_loss, dynamic=False) if compiled else self._summed_loss
        blocks = [p for p in self.model.transformer.h.parameters() if p.ndim == 2]
        rest = [p for p in self.model.parameters() if not any(p is block for block in blocks)]
        decay = recipe.weight_decay
        groups = [
            {"params": [p for p in rest if p.ndim == 2], "weight_decay": decay},
            {"params": [p for p in rest if p.ndim != 2], "weight_decay": 0.0},
        ]
        self._optimizers = {
            "muon": Muon(blocks, recipe.learning_rate, decay, bf16),
            "adamw": torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=_BETAS, fused=True),
        }

    def advance(self, batch: Int[Tensor, "batch tokens"]) -> float:
        """One step on a whole batch, rows of context + 1 tokens; the mean loss in nats a token, over all processes."""
        own = batch[self._rank :: self._world].to(self._device)
        predicted = batch.shape[0] * (batch.shape[1] - 1)
        total = torch.zeros((), device=self._device)
        for part in own.split(self._part_rows(len(own))):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
                loss = self._loss(part) / predicted
            loss.backward()
            total += loss.detach()
        self._share(total)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(self.step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        self.step += 1
        return float(total)

    def _part_rows(self, rows: int) -> int:
        """Rows of a forward pass: a divisor of `rows`, so that every pass has the same shape."""
        tokens = tokens_of_a_pass(self.model.config)
        most = max(1, (min(tokens, _CHUNK_TOKENS) if self._device.type == "cpu" else tokens) // self.recipe.context)
        return max(size for size in range(1, min(most, rows) + 1) if rows % size == 0)

    def _summed_loss(self, rows: Int[Tensor, "n tokens"]) -> Float[Tensor, ""]:
        states = self.model.transformer(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        return summed_loss(states.flatten(0, 1), self.model.lm_head.weight, rows[:, 1:].flatten())

    def _share(self, total: Tensor) -> None:
        """Sum gradients and loss over the processes."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        sum_over_processes([total.view(1), *gradients], self._world)

    def save(self, path: Path) -> None:
        """Weights, optimizer state, step and recipe, as safetensors. Raises InputError where it cannot be written."""
        weights = {name: value for name, value in self.model.state_dict().items() if name != "lm_head.weight"}
        tensors = {f"model/{name}": value.cpu().clone() for name, value in weights.items()}
        for kind, optimizer in self._optimizers.items():
            tensors |= {f"{kind}/{name}": value for name, value in optimizer_state(optimizer).items()}
        save_state(path, tensors, {"recipe": _described(self.recipe), "step": str(self.step)})

    def load(self, path: Path) -> None:
        """Go on from a checkpoint. Raises InputError where it is of another recipe, or not whole."""
        tensors, metadata = load_state(path)
        if metadata.get("recipe") != _described(self.recipe):
            raise InputError(
                f"{path}: a checkpoint of another configuration, {metadata.get('recipe')}; expected "
                f"{_described(self.recipe)}. Remove it, or run with the configuration it was made with."
            )
        weights = below(tensors, "model")
        self.model.load_state_dict({**weights, "lm_head.weight": weights["transformer.wte.weight"]})
        for kind, optimizer in self._optimizers.items():
            use_moments(optimizer, below(tensors, kind))
        self.step = int(metadata["step"])


def _attend_plainly(model: Any) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register("causal_attention", causal_attention)
    model.set_attn_implementation("causal_attention")


def _described(recipe: Recipe) -> str:
    return json.dumps(asdict(recipe), sort_keys=True)
