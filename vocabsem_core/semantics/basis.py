"""The semantic basis: one vector a vocabulary label, the rows of the head's pseudoinverse (paper, section 3.1).

Row i is s_i = e_i W⁺ᵀ = w_i (WᵀW)⁺: the least-squares preimage of the one-hot logits e_i. Neither the v x v product nor
the SVD of W [v, d] is ever formed: the d x d Gram matrix, accumulated in float64 over blocks of rows, is enough. Of
that symmetric matrix only the upper triangle is computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.names import RCOND
from vocabsem_core.numerics.ticks import tick

_PART_ROWS = 1024  # rows held in float64 at a time: they stay in a processor's cache, and in little memory
_PART_COLUMNS = 4  # parts the Gram matrix's columns are cut into; with 4, 10 of its 16 squares are computed


@dataclass(frozen=True)
class SemanticBasis:
    """The eigendecomposition of a head's Gram matrix WᵀW, from which every basis row follows.

    Attributes:
        values: the eigenvalues that are kept, in ascending order, [rank], float64.
        vectors: their eigenvectors, [d, rank], float64.
    """

    values: Float[Tensor, " rank"]
    vectors: Float[Tensor, "d rank"]

    @property
    def rank(self) -> int:
        """The number of singular values kept."""
        return len(self.values)

    @property
    def condition(self) -> float:
        """Largest over smallest kept singular value of W."""
        return float((self.values[-1] / self.values[0]).sqrt())

    @cached_property
    def inverse(self) -> Float[Tensor, "d d"]:
        """(WᵀW)⁺, float64."""
        return self.shrunken(0.0)

    def shrunken(self, shrinkage: float) -> Float[Tensor, "d d"]:
        """(WᵀW + a·I)⁻¹ on the kept directions, float64, with a = `shrinkage` times the mean eigenvalue (ours).

        The inverse raises directions of small variance; this raises them less. 0 is the paper's basis; with more and
        more, rows point as the head's own do.
        """
        mean = self.values.sum() / len(self.vectors)
        return (self.vectors / (self.values + shrinkage * mean)) @ self.vectors.T

    @torch.no_grad()  # a module's own weight may be given
    def rows(self, head_rows: Float[Tensor, "n d"], shrinkage: float = 0.0) -> Float[Tensor, "n d"]:
        """Basis rows of the labels whose head rows are given, float32; the product is taken in float64."""
        inverse = self.shrunken(shrinkage) if shrinkage else self.inverse
        rows = torch.empty(head_rows.shape, dtype=torch.float32, device=head_rows.device)
        for part, place in zip(head_rows.split(_PART_ROWS), rows.split(_PART_ROWS), strict=True):
            place.copy_(part.double() @ inverse)
        return rows


@torch.no_grad()
def semantic_basis(
    blocks: Iterable[Float[Tensor, "_ d"]], rcond: float = RCOND, rows: int | None = None
) -> SemanticBasis:
    """The semantic basis of an LM head (paper, section 3.1).

    Memory: one block as given, 1024 of its rows in float64, and a few d x d matrices in float64.

    Args:
        blocks: the rows of the head, [v, d] in all, in blocks; each is used once.
        rcond: singular values below this share of the largest count as zero (ours).
        rows: v, where it is known; for progress alone.

    Raises:
        InputError: where there are no rows, all are zero, or a value is not finite.

    Example:
        >>> head = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
        >>> basis = semantic_basis([head])
        >>> basis.rank, basis.condition
        (2, 2.0)
        >>> basis.rows(head[:2])
        tensor([[0.5000, 0.0000],
                [0.0000, 1.0000]])
    """
    gram, done = None, 0
    for block in blocks:
        if gram is None:
            gram = torch.zeros(block.shape[1], block.shape[1], dtype=torch.float64, device=block.device)
        for part in block.split(_PART_ROWS):
            _add_gram(gram, part.double())  # before the product: a bfloat16 product would return bfloat16
            done += len(part)
            tick(done, rows or 0, "rows read")
    if gram is None:
        raise InputError("the LM head has no rows; expected [vocabulary size, width]")
    if not torch.isfinite(gram).all():
        raise InputError("the LM head has values that are not finite; the model's file is broken")
    values, vectors = torch.linalg.eigh(gram, UPLO="U")
    kept = values > rcond**2 * values[-1]
    if not kept.any():
        raise InputError("the LM head is all zeros; the model's file is broken")
    return SemanticBasis(values[kept], vectors[:, kept])


def _add_gram(gram: Float[Tensor, "d d"], rows: Float[Tensor, "n d"]) -> None:
    """Add rowsᵀ rows to the upper triangle of `gram`, in place; below the diagonal there is no meaning."""
    width = -(-rows.shape[1] // _PART_COLUMNS)
    for start in range(0, rows.shape[1], width):
        place = gram[start : start + width, start:]
        place.addmm_(rows[:, start : start + width].T, rows[:, start:])


def round_trip(
    basis_rows: Float[Tensor, "n d"], ids: Int[Tensor, " n"], blocks: Iterable[Float[Tensor, "_ d"]]
) -> float:
    """The share of labels i for which argmax(W s_i) = i. Not guaranteed by the definition, so it is reported."""
    best = torch.full((len(ids),), -torch.inf)
    where = torch.full((len(ids),), -1)
    start = 0
    for block in blocks:
        values, places = (basis_rows @ block.float().T).max(dim=1)
        where = torch.where(values > best, places + start, where)
        best = torch.maximum(values, best)
        start += len(block)
    return float((where == ids).double().mean())
