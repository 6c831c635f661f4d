"""Muon against torch's, which rounds to bfloat16, and against the singular values it is about."""

import pytest
import torch

from vocabsem_core.pretraining.muon import Muon, orthogonal

SHAPES = [(24, 24), (16, 40), (40, 16)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_values_come_near_one(shape):
    matrix = drawn(*shape)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values /= values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    found = orthogonal(matrix, bf16=False)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), left @ values.diag() @ right, rtol=0, atol=2e-5)
    assert ((values > 0.6) & (values < 1.25)).float().mean() > 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_in_half_precision_it_is_the_same_within_its_rounding(shape):
    matrix = drawn(*shape)
    bf16 = orthogonal(matrix, bf16=True)
    assert bf16.dtype == torch.bfloat16
    torch.testing.assert_close(bf16.float(), orthogonal(matrix, bf16=False), rtol=0, atol=0.03)


def test_nothing_stays_nothing():
    assert not orthogonal(torch.zeros(4, 6), bf16=False).any()


@pytest.mark.parametrize(("bf16", "apart"), [(True, 1e-7), (False, 2e-3)])
def test_it_takes_the_steps_of_torchs(bf16, apart):
    """Torch's iteration is in bfloat16: with half precision the steps are the same, else within its rounding."""
    start = [drawn(*shape, seed=place) for place, shape in enumerate(SHAPES)]
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    optimizers = (
        Muon(ours, 0.01, 0.1, bf16),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(3):
        for optimizer, weights in zip(optimizers, (ours, theirs), strict=True):
            for place, weight in enumerate(weights):
                weight.grad = drawn(*weight.shape, seed=10 * step + place)
            optimizer.step()
    for weight, expected, before in zip(ours, theirs, start, strict=True):
        assert (expected - before).abs().max() > 0.005
        torch.testing.assert_close(weight, expected, rtol=0, atol=apart)
    assert [set(state) for state in optimizers[0].state.values()] == [{"momentum_buffer"}] * len(SHAPES)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_several_matrices_at_once_are_each_as_alone(shape, bf16):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([orthogonal(matrix, bf16) for matrix in matrices])
    torch.testing.assert_close(orthogonal(matrices, bf16), alone, atol=2e-2 if bf16 else 1e-5, rtol=0)
