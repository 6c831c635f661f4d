"""Log-sums over a whole vocabulary, for cross-entropy over all bases, without a logit for each of its rows.

The cosines of one state with all rows of a real basis lie around zero, about a twentieth wide: log Σ exp(c_i / T) is
then, to a few hundred-thousandths, what a normal distribution of the same mean and variance gives (our choice),

    log v + ĥ·m / T + ĥᵀ C ĥ / 2 T²

with ĥ = h / |h|, and m and C the mean and covariance of the unit rows. That is d² products a state instead of v·d. The
few rows of the task's own labels, which training moves states to, are no part of it: the caller adds them exactly.

Whether it holds is looked at in every epoch, on some states of each lane; one that is off goes on with the sum itself.
The sum is made by blocks of rows, so that memory does not grow with the vocabulary. Other similarities take it, and
small vocabularies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.names import Similarity
from vocabsem_core.numerics.matmul import bf16_is_fast
from vocabsem_core.semantics.affinity import similarities

BLOCK = 4096  # rows whose logits are made at once; a vocabulary of no more is always summed
TOLERANCE = 2e-4  # of a loss of about log v, 10: beyond, a lane is summed exactly


class Vocabulary:
    """Basis rows, [v, d], of all tokens but the task's labels.

    Sums of cosines are made of bfloat16 products where those are fast: no cosine is beyond 1, and the rounding of
    thousands evens out. They are added in float32.
    """

    def __init__(self, rows: Float[Tensor, "v d"]) -> None:
        self.rows = rows
        self._bf16 = rows.dtype == torch.float32 and bf16_is_fast(rows.device.type)

    def to(self, device: torch.device | str) -> Vocabulary:
        """The same on a device; what was measured is kept where that is this one."""
        return self if self.rows.device == torch.device(device) else Vocabulary(self.rows.to(device))

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean [d] and covariance [d, d] of the unit rows; blocks are added up in float64."""
        count, width = self.rows.shape
        mean, second = (torch.zeros(shape, device=self.rows.device).double() for shape in ((width,), (width, width)))
        for block in self.rows.split(BLOCK):
            unit = functional.normalize(block, dim=1)
            mean += unit.double().sum(dim=0)
            second += unit.T @ unit
        mean, second = mean / count, second / count
        return mean.to(self.rows.dtype), (second - torch.outer(mean, mean)).to(self.rows.dtype)

    @cached_property
    def _squares(self) -> Tensor:
        """Squared norms of the rows, [v]."""
        return torch.cat([block.square().sum(dim=1) for block in self.rows.split(BLOCK)])

    def is_summed(self, similarity: Similarity) -> bool:
        """Whether the sum is never estimated."""
        return similarity != "cosine" or len(self.rows) <= BLOCK

    def log_sums(
        self,
        moved: Float[Tensor, "lanes n d"],
        temperatures: Float[Tensor, " lanes"],
        similarity: Similarity,
        exact: Bool[Tensor, " lanes"],
    ) -> Float[Tensor, "lanes n"]:
        """log Σ_i exp(similarity(h, s_i) / T).

        Args:
            moved: calibrated states.
            temperatures: T of each lane.
            similarity: of states and rows.
            exact: lanes, on the CPU, that are summed; the others are estimated.
        """
        by_row = temperatures[:, None, None].expand(*moved.shape[:2], 1)
        if exact.all():
            return _LogSum.apply(moved, by_row, self, similarity)
        found = self._estimate(moved, by_row)
        if exact.any():
            places = exact.nonzero().squeeze(1).to(moved.device)
            summed = _LogSum.apply(moved[places], by_row[places], self, similarity)
            found = found.index_copy(0, places, summed)
        return found

    @torch.no_grad()
    def off(self, moved: Float[Tensor, "lanes n d"], temperatures: Float[Tensor, " lanes"]) -> Bool[Tensor, " lanes"]:
        """The lanes, on the CPU, whose cosines are too far from normal."""
        lanes = torch.ones(len(moved), dtype=torch.bool)
        estimated, summed = (self.log_sums(moved, temperatures, "cosine", exact) for exact in (~lanes, lanes))
        return ((estimated - summed).abs() > TOLERANCE).any(dim=1).cpu()

    def _estimate(self, moved: Tensor, temperatures: Tensor) -> Tensor:
        mean, covariance = self._moments
        unit = functional.normalize(moved, dim=-1) / temperatures
        spread = ((unit @ covariance) * unit).sum(dim=-1)
        return unit @ mean + spread / 2 + math.log(len(self.rows))

    def blocks(self) -> Iterator[slice]:
        """Rows to take at once."""
        return (slice(start, start + BLOCK) for start in range(0, len(self.rows), BLOCK))

    def logits(
        self,
        moved: Float[Tensor, "lanes n d"],
        temperatures: Float[Tensor, "lanes n 1"],
        block: slice,
        similarity: Similarity,
    ) -> Float[Tensor, "lanes n rows"]:
        """Of states with the rows of a block."""
        rows, squares = self.rows[block], moved.square().sum(dim=-1, keepdim=True)
        bf16 = self._bf16 and similarity == "cosine"
        dots = (moved.bfloat16() @ rows.bfloat16().T).float() if bf16 else moved @ rows.T
        return similarities(dots, squares, self._squares[block], similarity) / temperatures


class _LogSum(torch.autograd.Function):
    """The sum itself, block by block. Its gradient is summed on the way, so that nothing of a block is kept."""

    @staticmethod
    def forward(
        context: Any, moved: Tensor, temperatures: Tensor, vocabulary: Vocabulary, similarity: Similarity
    ) -> Tensor:
        wanted = any(context.needs_input_grad)
        leaves = [part.detach().requires_grad_(wanted) for part in (moved, temperatures)]
        sums = [torch.zeros_like(leaf) for leaf in leaves]  # of the gradients, each times its logit's power
        total, top = moved.new_zeros(moved.shape[:-1]), moved.new_full(moved.shape[:-1], -math.inf)
        for block in vocabulary.blocks():
            with torch.set_grad_enabled(wanted):
                logits = vocabulary.logits(leaves[0], leaves[1], block, similarity)
            known = logits.detach()
            highest = torch.maximum(top, known.amax(dim=-1))
            powers, shrink = (known - highest.unsqueeze(-1)).exp(), (top - highest).exp()
            total, top = total * shrink + powers.sum(dim=-1), highest
            if wanted:
                parts = torch.autograd.grad(logits, leaves, powers)
                sums = [whole * shrink.unsqueeze(-1) + part for whole, part in zip(sums, parts, strict=True)]
        if wanted:
            context.save_for_backward(*(whole / total.unsqueeze(-1) for whole in sums))
        return top + total.log()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient.unsqueeze(-1) * part for part in context.saved_tensors), None, None)
