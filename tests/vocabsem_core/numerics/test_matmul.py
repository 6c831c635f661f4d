"""Products stay float32 whoever takes them: a faster library is used only where it is as exact."""

from itertools import count

import pytest
import torch

from vocabsem_core.numerics import matmul as products
from vocabsem_core.numerics.matmul import bf16_is_fast, fast_float32

MATMUL = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def _tried_anew():
    products._onednn_is_better.cache_clear()
    yield
    products._onednn_is_better.cache_clear()


def test_half_precision_is_tried_out():
    assert isinstance(bf16_is_fast("cpu"), bool)


@pytest.mark.parametrize("has_it", [True, False])
def test_a_gpu_that_only_imitates_half_precision_is_not_fast_at_it(monkeypatch, has_it):
    """As before Ampere: bfloat16 can be had, and is no faster."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_it)
    bf16_is_fast.cache_clear()
    assert bf16_is_fast("cuda") is has_it
    bf16_is_fast.cache_clear()


@pytest.mark.parametrize("shape", [(1, 7, 3), (33, 256, 129), (1024, 256, 64), (5, 4096, 2)])
@pytest.mark.parametrize("kind", ["product", "linear", "several", "turned", "gradient"])
def test_products_within_are_as_exact_as_float32(shape, kind):
    rows, inner, columns = shape
    draw = torch.Generator().manual_seed(1)
    left, right = torch.randn(rows, inner, generator=draw), torch.randn(inner, columns, generator=draw)
    exact = left.double() @ right.double()
    with fast_float32():
        if kind == "product":
            found = left @ right
        elif kind == "linear":
            found = torch.nn.functional.linear(left, right.T.contiguous())
        elif kind == "several":
            found = (left.expand(3, -1, -1) @ right.expand(3, -1, -1))[2]
        elif kind == "turned":
            found = (right.T @ left.T).T
        else:
            weights = torch.zeros(rows, inner, requires_grad=True)
            (weights @ right).backward(torch.ones(rows, columns))
            found, exact = weights.grad, torch.ones(rows, columns).double() @ right.double().T
    assert float((found - exact).abs().max()) < 1e-5 * inner**0.5 + 1e-6 * columns


@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_what_was_set_before_is_set_after(monkeypatch, before):
    monkeypatch.setattr(products, "_onednn_is_better", lambda matmul: True)
    found = MATMUL.fp32_precision
    MATMUL.fp32_precision = before
    set_to = MATMUL.fp32_precision

    @fast_float32()
    def fails():
        assert MATMUL.fp32_precision == "bf16"
        raise KeyError

    try:
        with pytest.raises(KeyError):
            fails()
        assert MATMUL.fp32_precision == set_to
    finally:
        MATMUL.fp32_precision = found
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("error", "faster", "better"),
    [
        ([1e-5, 2e-5], 2.0, True),
        ([1e-5, 1e-2], 10.0, False),  # bfloat16, as with AMX
        ([1e-5, 1e-5], 1.1, False),  # not clearly
    ],
)
def test_the_other_library_must_be_as_exact_and_clearly_faster(monkeypatch, error, faster, better):
    errors = [value for value in error for _ in products._SHAPES]
    monkeypatch.setattr(products, "_error", lambda left, right: errors.pop(0))
    monkeypatch.setattr(products, "_times_faster", lambda one, other: faster)
    before = MATMUL.fp32_precision
    with fast_float32():
        assert (MATMUL.fp32_precision == "bf16") is better
    assert products.float32_library() == ("oneDNN" if better else "default")
    assert MATMUL.fp32_precision == before
    assert errors == []


def test_what_is_faster_is_found_though_the_other_is_disturbed(monkeypatch):
    monkeypatch.setattr(products.time, "thread_time", lambda: now[0])
    now, calls = [0.0], count()

    def takes(seconds):
        def product():
            now[0] += seconds + (5 if next(calls) % 7 else 0)  # most are disturbed, of either

        return product

    assert products._times_faster(takes(1), takes(2)) == pytest.approx(2)


def test_what_is_clearly_slower_is_not_waited_for(monkeypatch):
    calls = []

    def product(seconds):
        def called():
            calls.append(seconds)
            now[0] += seconds

        return called

    now = [0.0]
    monkeypatch.setattr(products.time, "thread_time", lambda: now[0])
    assert products._times_faster(product(3), product(1)) == pytest.approx(1 / 3)
    assert calls == [3, 1] * products._FEW


def test_bfloat16_would_be_seen():
    left, right = torch.randn(256, 256), torch.randn(256, 256)
    assert products._error(left.bfloat16(), right.bfloat16()) > 100 * products._error(left, right)


def test_an_older_torch_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch.backends, "mkldnn", object())
    with fast_float32():
        pass
    assert products.float32_library() == "default"
