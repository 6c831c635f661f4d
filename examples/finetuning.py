"""Finetuning of a network as a practitioner does it, whole or its last layer alone, as a method of one's own.

It reads `layer: layer_00`, which for a network is its input. The head is among its needs, so that its results are made
anew when the network's weights change.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from vocabsem import Domain, Method, Settings, open_network

if TYPE_CHECKING:
    import torch


class FinetuningSettings(Settings):
    """What a workflow file may set."""

    network: str = Field(description="the network, file.py:function, relative to this file")
    whole: bool = Field(True, description="train all weights; false: the last layer alone")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    epochs: int = Field(20, ge=1, description="the one of lowest validation loss is kept")
    steps: int = Field(200, ge=0, description="of few rows as many more epochs as make so many steps")
    batch_size: int = Field(64, ge=1, description="rows per step")


class Finetuning(Method):
    """AdamW on cross-entropy over the task's classes, from the network's weights."""

    name = "finetuning"
    needs = frozenset({"train", "head"})
    seeded = True
    Settings = FinetuningSettings
    space = {"learning_rate": Domain(log_uniform=(1e-4, 1e-2))}  # noqa: RUF012 - as docs/own-method.md has it
    _last: tuple[Any, Any] | None = None  # materials, and the network that was opened for them

    def fit(self, settings: FinetuningSettings, materials: Any, seed: int) -> dict[str, torch.Tensor]:
        """The trained weights of the epoch with the lowest validation loss."""
        import torch

        module, trained, shape, rows = self._open(settings, materials)
        train, held = materials.train, materials.validation
        optimizer = torch.optim.AdamW(trained.values(), lr=settings.learning_rate, weight_decay=0.01)
        generator = torch.Generator().manual_seed(seed)
        best, kept = float("inf"), copy.deepcopy(trained)
        batches = -(-len(train.labels) // settings.batch_size)
        for _ in range(max(settings.epochs, settings.steps // batches)):
            for part in torch.randperm(len(train.labels), generator=generator).split(settings.batch_size):
                optimizer.zero_grad()
                logits = module(train.states[part].view(-1, *shape))[:, rows]
                torch.nn.functional.cross_entropy(logits, train.labels[part]).backward()
                optimizer.step()
            with torch.inference_mode():
                logits = module(held.states.view(-1, *shape))[:, rows]
                loss = float(torch.nn.functional.cross_entropy(logits, held.labels))
            if loss < best:
                best, kept = loss, copy.deepcopy(trained)
        return {name: weight.detach() for name, weight in kept.items()}

    def predict(self, settings: FinetuningSettings, fitted: Any, states: torch.Tensor, materials: Any) -> torch.Tensor:
        """Logits of the classes."""
        import torch
        from torch.func import functional_call

        if self._last is None or self._last[0] is not materials:  # a policy asks step by step
            self._last = materials, self._open(settings, materials)
        module, _, shape, rows = self._last[1]
        with torch.inference_mode():
            parts = [functional_call(module, fitted, part.view(-1, *shape)) for part in states.split(256)]
        return torch.cat(parts)[:, rows]

    @staticmethod
    def _open(settings: FinetuningSettings, materials: Any) -> tuple[Any, dict[str, Any], tuple[int, ...], list[int]]:
        """The module, the weights that are trained, the shape of an input, and the head's row of each class."""
        network = open_network(settings.network, Path(__file__).parent)
        module, head = network.encoder.module, f"{network.encoder.name}."
        trained = {
            name: weight for name, weight in module.named_parameters() if settings.whole or name.startswith(head)
        }
        rows = [row for (row,) in materials.tokens]
        return module, trained, tuple(network.network.example.shape), rows
