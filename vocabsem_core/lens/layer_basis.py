"""What stands for a label at a layer, and how a layer's states get into the space where it is compared.

Head side: the states go through the model's own tail, and the head's semantic basis stands there (logit-lens practice).
Embedding side: the states stay as they are, and the rows of the input embedding stand there. Between the two the rows
are interpolated by depth, as in code of the paper's authors (`raw`); of rows that are first made unit vectors the
longer side does not decide alone (ours). A learned affine map a layer, before the tail, is tuned-lens practice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.errors import InputError

_PENALTIES = tuple(10.0**power for power in range(-3, 5))  # of standardised states, a row
_SMALLEST = 1e-6  # deviation of a dimension


def depth_of(layer: str, last: str) -> float:
    """How deep a layer lies: 0 for `layer_00`, 1 for the last block's output and for `head`."""
    number, whole = (int(name.removeprefix("layer_")) for name in (last if layer == "head" else layer, last))
    return number / whole


def interpolated(
    embedding: Float[Tensor, "c e"], basis: Float[Tensor, "c d"], depth: float, raw: bool = False
) -> Float[Tensor, "c d"]:
    """Label rows between the two sides: at depth 0 the embedding's, at depth 1 the head-side basis.

    Args:
        embedding: the input embedding's rows of the labels.
        basis: their rows of the semantic basis.
        depth: from 0 to 1.
        raw: whether rows are taken as they are (the authors' later code); else each is made a unit vector first (ours).

    Raises InputError where the two sides differ in width.
    """
    if embedding.shape[1] != basis.shape[1]:
        raise InputError(
            f"the input embedding has {embedding.shape[1]} dimensions, the head's input {basis.shape[1]}: there is "
            "nothing between them; leave out the bases `embedding` and `interpolated`"
        )
    if not raw:
        embedding, basis = functional.normalize(embedding, dim=-1), functional.normalize(basis, dim=-1)
    return torch.lerp(embedding, basis, depth)


@dataclass(frozen=True)
class AffineMap:
    """h -> h + (h - mean) A + b, in the space of blocks' outputs.

    Attributes:
        mean: [d], of the states it was learned from.
        weight: A, [d, d].
        bias: b, [d].
        penalty: of A, chosen on rows held out.
    """

    mean: Float[Tensor, " d"]
    weight: Float[Tensor, "d d"]
    bias: Float[Tensor, " d"]
    penalty: float

    def __call__(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return states + (states - self.mean) @ self.weight + self.bias


def fit_affine(states: Float[Tensor, "n d"], last: Float[Tensor, "n d"]) -> AffineMap:
    """The affine map from a layer's states to the last block's output of the same rows.

    The tuned lens trains such a map by the divergence of the logits, by many thousand tokens. Here it is ridge
    regression of what is missing, last - h, so that it shrinks to the logit lens (ours): a thousand rows are enough,
    and it has one solution. The penalty is the best of eight on every fifth row, which is held out for that alone.

    Args:
        states: of the layer.
        last: of the last block's output.

    Raises InputError for fewer than ten rows.
    """
    count = len(states)
    if count < 10:
        raise InputError(f"{count} rows were given for an affine map; expected ten or more")
    held = torch.arange(count) % 5 == 0
    fits = _ridges(states[~held], last[~held])
    deviation = last.double().std(dim=0).clamp_min(_SMALLEST)
    misses = [((fit(states[held].double()) - last[held].double()) / deviation).square().mean() for fit in fits]
    best = int(torch.stack(misses).argmin())
    (whole,) = _ridges(states, last, (_PENALTIES[best],))
    return AffineMap(whole.mean.float(), whole.weight.float(), whole.bias.float(), whole.penalty)


def _ridges(
    states: Float[Tensor, "n d"], last: Float[Tensor, "n d"], penalties: tuple[float, ...] = _PENALTIES
) -> list[AffineMap]:
    """The map for each penalty, float64, from one eigendecomposition."""
    x, missing = states.double(), last.double() - states.double()
    mean, bias = x.mean(dim=0), missing.mean(dim=0)
    deviation = x.std(dim=0).clamp_min(_SMALLEST)
    z = (x - mean) / deviation
    values, vectors = torch.linalg.eigh(z.T @ z)
    right = vectors.T @ (z.T @ (missing - bias))
    found = []
    for penalty in penalties:
        weight = vectors @ (right / (values.clamp_min(0) + penalty * len(x)).unsqueeze(1))
        found.append(AffineMap(mean, weight / deviation.unsqueeze(1), bias, penalty))
    return found
