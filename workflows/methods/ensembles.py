"""A method fitted on several folds, whose predictions are averaged (cross-validated committee; Parmanto et al., 1996).

Each member has another fifth of the training rows held out, which ends its training where it is one of epochs; so all
rows are learned from, and no member decides alone. What members learned lies in one dictionary, "fold 1/weight".
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workflows.methods.base import Method, check_tensors, plain_scores

if TYPE_CHECKING:
    from torch import Tensor

    from workflows.methods.inputs.states import TaskFeatures


MEAN_OF_FOLDS = 2  # the version of their mean, in keys; 2: a probability too small for float32 is not 0


def fit_folds(method: Method, settings: Any, materials: TaskFeatures, seed: int, folds: int) -> dict[str, Tensor]:
    """What the method learns on so many folds, each with a seed of its own; with one it is the method's own fit."""
    from vocabsem_core.numerics.ticks import part_of_more

    members = []
    for fold in range(folds):
        with part_of_more(fold, folds, "folds") if folds > 1 else nullcontext():
            member = method.fit(settings, _of_fold(materials, fold), seed * folds + fold)
        check_tensors(method, member)
        members.append(member)
    if folds == 1:
        return members[0]
    return {f"{_prefix(fold)}{name}": tensor for fold, one in enumerate(members) for name, tensor in one.items()}


def predict_folds(
    method: Method, settings: Any, fitted: dict[str, Tensor], states: Tensor, materials: TaskFeatures, folds: int
) -> Tensor:
    """Class scores [n, classes]: of several folds the logarithm of their mean probabilities."""
    import torch

    scores = [
        plain_scores(method, method.predict(settings, member, states, _of_fold(materials, fold)))
        for fold, member in enumerate(_members(fitted, folds))
    ]
    if folds == 1:
        return scores[0]
    return torch.stack(scores).log_softmax(dim=2).logsumexp(dim=0) - math.log(folds)


def plain_copy(tensor: Tensor) -> Tensor:
    """Its numbers, in memory of their own."""
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def first_member(fitted: dict[str, Tensor], folds: int) -> dict[str, Tensor]:
    """What was learned on the first fold: the rows that it held out are those of a single fit."""
    return _members(fitted, folds)[0]


def trained_in_folds(method: Method, fitted: dict[str, Tensor], folds: int) -> int:
    """How many numbers were trained, over all folds."""
    return sum(method.trained_weights(member) for member in _members(fitted, folds))


def _of_fold(materials: TaskFeatures, fold: int) -> TaskFeatures:
    """What a member sees, when it learns and when it predicts: a method without weights votes by its training rows.

    A method that is served sees nothing: it reads none.
    """
    return replace(materials, fold=fold) if fold and materials is not None else materials


def _members(fitted: dict[str, Tensor], folds: int) -> list[dict[str, Tensor]]:
    if folds == 1:
        return [fitted]
    prefixes = [_prefix(fold) for fold in range(folds)]
    return [{k.removeprefix(p): tensor for k, tensor in fitted.items() if k.startswith(p)} for p in prefixes]


def _prefix(fold: int) -> str:
    return f"fold {fold}/"
