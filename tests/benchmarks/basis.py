"""The semantic basis against torch.linalg.pinv: time, accuracy; memory of a large head is in `large_head`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tests.benchmarks.common import REFERENCE, Case, alternate
from vocabsem_core.features.checkpoints import head_place
from vocabsem_core.semantics.basis import RCOND, semantic_basis
from workflows.steps import HEAD_ROWS_PER_SHARD

ROWS, WIDTH = 50_257, 768  # GPT-2's head
ERROR = 1e-5  # relative, of the worst row


def cases(data_dir: Path | None = None) -> Iterator[Case]:
    """All cases; `data_dir` is not used."""
    from tests.benchmarks.large_head import cases as large

    yield from time_cases(random_head(ROWS, WIDTH), rounds=7)
    place = head_place(REFERENCE)
    bundled = torch.cat(list(place.blocks(place.rows(), HEAD_ROWS_PER_SHARD)))
    yield accuracy_case("accuracy, bundled model's head", bundled)
    yield accuracy_case("accuracy, condition 1e4", conditioned_head(20_000, 512, 1e4))
    yield from large()


def ours(head: Tensor) -> Tensor:
    """Basis rows of all labels, [v, d], float32."""
    return semantic_basis(head.split(HEAD_ROWS_PER_SHARD)).rows(head)


def pinv(head: Tensor) -> Tensor:
    """The same by pseudoinverse, in the head's dtype: pinv(Wᵀ) is [v, d]."""
    return torch.linalg.pinv(head.T, rtol=RCOND)


def random_head(v: int, d: int) -> Tensor:
    """A head of independent normal weights, float32."""
    return torch.randn(v, d, generator=torch.Generator().manual_seed(0))


def conditioned_head(v: int, d: int, condition: float) -> Tensor:
    """A head whose singular values fall evenly on a logarithmic scale from 1 to 1 / condition, float32."""
    generator = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(v, d, dtype=torch.float64, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=generator))
    values = torch.logspace(0, -torch.tensor(condition).log10().item(), d, dtype=torch.float64)
    return ((left * values) @ right.T).float()


def worst_error(found: Tensor, reference: Tensor) -> float:
    """The largest ||found - reference|| / ||reference|| over rows."""
    gaps = (found.double() - reference.double()).norm(dim=1)
    return float((gaps / reference.double().norm(dim=1)).max())


def time_cases(head: Tensor, rounds: int) -> Iterator[Case]:
    """Seconds for all rows, against pinv in float32 and in float64."""
    sides = {"ours": lambda: ours(head), "float32": lambda: pinv(head), "float64": lambda: pinv(head.double())}
    alternate(sides, 1)  # warm up
    found = alternate(sides, rounds)
    shape = f"all rows of a {head.shape[0]:,} x {head.shape[1]} float32 head"
    for dtype, goal in (("float32", 2.5), ("float64", 5.0)):
        detail = (
            f"ours {found['ours']:.2f} s, pinv {dtype} {found[dtype]:.2f} s; {shape}, median of {rounds} alternating "
            f"runs, {torch.get_num_threads()} threads"
        )
        yield Case("basis", f"time against {dtype} pinv", found[dtype] / found["ours"], goal, detail)


def accuracy_case(case: str, head: Tensor) -> Case:
    """The worst row's relative error against the pseudoinverse in float64."""
    error = worst_error(ours(head), pinv(head.double()))
    plain = worst_error(pinv(head.float()), pinv(head.double()))
    basis = semantic_basis(head.split(HEAD_ROWS_PER_SHARD))
    detail = (
        f"worst row off by {error:.1e} (float32 pinv: {plain:.1e}); allowed {ERROR:g}; head {head.shape[0]:,} x "
        f"{head.shape[1]} {str(head.dtype).removeprefix('torch.')}, condition {basis.condition:.3g}"
    )
    return Case("basis", case, ERROR / max(error, 1e-12), 1.0, detail)
