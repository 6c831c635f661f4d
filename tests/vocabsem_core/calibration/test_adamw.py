"""AdamW of several trainings at once is torch's, of each alone."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from vocabsem_core.calibration.adamw import AdamW

WIDTH = 5
numbers = st.tuples(st.floats(1e-5, 1.0), st.floats(0, 1.0))  # rate, decay


def gradients(steps: int, lanes: int) -> torch.Tensor:
    drawn = torch.randn(steps, lanes, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    drawn[:, :, 0] = 0.0  # never moves but by decay
    return drawn * 10.0 ** torch.arange(-6, WIDTH - 6)


def alone(start: torch.Tensor, given: torch.Tensor, rate: float, decay: float) -> torch.Tensor:
    weight = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([weight], rate, weight_decay=decay)
    for gradient in given:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@given(lanes=st.lists(numbers, min_size=1, max_size=4), steps=st.integers(1, 12), dropped=st.integers(1, 12))
def test_each_row_is_stepped_as_torch_does_it_alone(lanes: list[tuple[float, float]], steps: int, dropped: int) -> None:
    start = torch.linspace(-1, 1, len(lanes) * WIDTH).double().reshape(len(lanes), WIDTH)
    weights, given = start.clone(), gradients(steps, len(lanes))
    rates, decays = (torch.tensor([[one[part]] for one in lanes], dtype=torch.float64) for part in (0, 1))
    places = list(range(len(lanes)))
    optimizer = AdamW(weights, rates, decays)
    for number, gradient in enumerate(given):
        if number == dropped:
            places = places[-1:]
            weights = weights[places]
            optimizer.keep(places, weights)
        optimizer.step(gradient[places].clone())
    for row, place in zip(weights, places, strict=True):
        torch.testing.assert_close(row, alone(start[place], given[:, place], *lanes[place]), rtol=1e-9, atol=1e-9)
