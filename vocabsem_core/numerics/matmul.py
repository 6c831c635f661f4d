"""Which of torch's matrix products a device is fast at; a processor is tried out, for its instructions say little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

_TRIES = 20  # products timed of each kind, in turn; the fastest counts, so that other work on the processor does not
_FEW = 5  # tries that are enough where the one is clearly slower: some processors only imitate bfloat16, for seconds
_CLEARLY = 1.5  # times as fast: the same answer from every process of a machine, for bits follow from it
_AS_EXACT = 4  # times the error of torch's usual float32; bfloat16's is some thousand times that
_SHAPES = ((1024, 256, 64), (64, 1024, 256), (256, 256, 256))  # rows, inner, columns


@cache
def bf16_is_fast(device: str) -> bool:
    """Whether a device, "cpu" or "cuda", multiplies bfloat16 much faster than float32.

    A GPU does where it has the instructions (NVIDIA's from Ampere on; those before it only imitate them). A processor
    is tried out: with AMX it is ten times faster, on a Zen 5 with AVX512-BF16 four times; on other processors with
    AVX512-BF16 alone torch has been slower than in float32.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    left, right = torch.ones(256, 256), torch.ones(256, 1024)  # short, or seldom would one be left alone
    bf16 = left.bfloat16(), right.bfloat16()
    return _times_faster(lambda: torch.mm(*bf16), lambda: torch.mm(left, right)) > _CLEARLY


@contextmanager
def fast_float32() -> Iterator[None]:
    """Within, a processor's float32 products are oneDNN's where those are much faster than torch's usual ones.

    torch asks MKL, which does not use all of a processor that is not Intel's: on a Zen 5 oneDNN is 2.3 times as fast.
    It asks oneDNN where bfloat16's precision would do. oneDNN then uses bfloat16 if the processor has instructions that
    gain by it (AMX), and otherwise float32 all the same. Only then is it used here: the answer is as exact as before.
    Inductor must not compile within: it refuses a precision that was set for one library alone.
    """
    if float32_library() == "default":
        yield
        return
    matmul = _settings()
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def float32_library() -> str:
    """Whose products those within `fast_float32` are on this processor: "oneDNN", or "default", torch's usual ones."""
    matmul = _settings()
    return "oneDNN" if matmul is not None and _onednn_is_better(matmul) else "default"


def _settings() -> Any:
    """Those of oneDNN's matrix products; None: torch before 2.9 has none."""
    return getattr(torch.backends.mkldnn, "matmul", None)


@cache
def _onednn_is_better(matmul: Any) -> bool:
    draw = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(n, k, generator=draw), torch.randn(k, m, generator=draw)) for n, k, m in _SHAPES]
    before = matmul.fp32_precision

    def product(precision: str) -> None:
        matmul.fp32_precision = precision
        torch.mm(*pairs[0])

    try:
        usual_error = max(_error(*pair) for pair in pairs)
        matmul.fp32_precision = "bf16"
        error = max(_error(*pair) for pair in pairs)
        faster = _times_faster(lambda: product("bf16"), lambda: product(before))
    finally:
        matmul.fp32_precision = before
    return error < _AS_EXACT * usual_error and faster > _CLEARLY


def _error(left: Tensor, right: Tensor) -> float:
    """The largest of a product, and of as many products at once."""
    exact = left.double() @ right.double()
    several = torch.bmm(left.expand(2, -1, -1), right.expand(2, -1, -1))
    return float(torch.maximum((left @ right - exact).abs(), (several - exact).abs().amax(dim=0)).max())


def _times_faster(one: Callable[[], object], other: Callable[[], object]) -> float:
    """How many times as fast the one is, on one thread: it waits for no other, so its own time is that of its work."""
    times: dict[Callable[[], object], list[float]] = {one: [], other: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for tried in range(1, _TRIES + 1):
            for product, found in times.items():
                started = time.thread_time()
                product()
                found.append(time.thread_time() - started)
            ratio = min(times[other]) / min(times[one])
            if tried >= _FEW and ratio < 1 / _CLEARLY:
                break
    finally:
        torch.set_num_threads(threads)
    return ratio
