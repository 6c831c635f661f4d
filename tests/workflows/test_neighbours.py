"""Settings that share one search for neighbours: each comes out as if it were alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vocabsem_core.calibration.modules import Labelled
from vocabsem_core.features.heads import OutputHead
from workflows.config.space import random_settings
from workflows.methods.registry import method_named

CLASSES, WIDTH = 3, 6


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()  # many equally near


HEAD = OutputHead(drawn(20, WIDTH, seed=0))
MATERIALS: Any = SimpleNamespace(
    labels=["a", "b", "c"],
    train=Labelled(drawn(90, WIDTH, seed=1), torch.arange(90) % CLASSES),
    head=HEAD,
    label_head=OutputHead(HEAD.weight[:CLASSES]),
    class_mean=lambda values, dim: values,
    label_scores=lambda states: OutputHead(HEAD.weight[:CLASSES]).logits(states),
)
STATES = drawn(40, WIDTH, seed=2)


@pytest.mark.parametrize("name", ["knn", "knn-lm", "knn-prompting"])
def test_settings_predicted_together_come_out_as_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, searches = method_named(name), []
    neighbors = type(method).neighbors  # type: ignore[attr-defined]

    def counted(self: Any, settings: Any, states: Any, k: int, materials: Any) -> Any:
        searches.append(k)
        return neighbors(self, settings, states, k, materials)

    monkeypatch.setattr(type(method), "neighbors", counted)
    jobs = [
        (method.Settings.model_validate(settings), {}) for settings in random_settings(method.space, {}, 12, seed=0)
    ]
    together = list(method.predict_many(jobs, STATES, MATERIALS))
    assert searches == ([64, 64] if name == "knn" else [max(settings.k for settings, _ in jobs)])
    for (settings, fitted), scores in zip(jobs, together, strict=True):
        assert torch.equal(scores, method.predict(settings, fitted, STATES, MATERIALS))
    assert len({tuple(scores.argmax(dim=1).tolist()) for scores in together}) > 3
