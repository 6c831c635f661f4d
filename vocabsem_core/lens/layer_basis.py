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
    penalty = _best_penalty((states[~held], last[~held]), (states[held], last[held]), last)
    mean, deviation, z, bias, missing = _standardised(states, last)
    curvature = z.T @ z
    curvature.diagonal().add_(penalty * count)
    weight = torch.cholesky_solve(z.T @ missing, torch.linalg.cholesky(curvature))
    return AffineMap(mean.float(), (weight / deviation.unsqueeze(1)).float(), bias.float(), penalty)


def _best_penalty(fitted: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], last: Tensor) -> float:
    """The penalty by which the map of the fitted rows misses the held ones least, all from one eigendecomposition."""
    mean, deviation, z, bias, missing = _standardised(*fitted)
    values, vectors = torch.linalg.eigh(z.T @ z)
    right = vectors.T @ (z.T @ missing)
    seen, expected = ((held[0].double() - mean) / deviation) @ vectors, held[1].double() - held[0].double() - bias
    spread = last.double().std(dim=0).clamp_min(_SMALLEST)

    def miss(penalty: float) -> float:
        found = (seen / (values.clamp_min(0) + penalty * len(z))) @ right
        return float(((found - expected) / spread).square().mean())

    return min(_PENALTIES, key=miss)


def _standardised(states: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean and deviation of states, the states in them; mean of what they miss of `last`, and what they miss seen from
    it. All in float64."""
    x, missing = states.double(), last.double() - states.double()
    mean, bias = x.mean(dim=0), missing.mean(dim=0)
    deviation = x.std(dim=0).clamp_min(_SMALLEST)
    return mean, deviation, (x - mean) / deviation, bias, missing - bias
