"""The semantic prior, against scikit-learn's logistic regression and its own formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vocabsem_core.baselines.linear import probe_logits
from vocabsem_core.calibration.prior import fit_prior, prior_rows
from vocabsem_core.errors import InputError
from vocabsem_core.semantics.centring import moments

CLASSES, WIDTH = 3, 8


def rows_of(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Overlapping classes in dimensions of unlike scale and place."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(9))
    states = centres[labels] + 2 * torch.randn(count, WIDTH, generator=draw)
    return states * torch.linspace(0.1, 5, WIDTH) + torch.linspace(-9, 9, WIDTH), labels


def fitted(states: Tensor, labels: Tensor, rows: Tensor, penalty: float = 0.5) -> dict[str, Tensor]:
    return fit_prior(states, labels, rows, *moments(states), penalty)


@pytest.mark.parametrize("count", [6, 90])
@pytest.mark.parametrize("penalty", [0.01, 0.5, 5.0])
def test_without_a_prior_it_is_scikit_learns_logistic_regression(count: int, penalty: float) -> None:
    """Whose intercept has a penalty too where it is the weight of one more dimension, of constant value √λ."""
    (states, labels), (test, _) = rows_of(count), rows_of(60, seed=1)
    strength = penalty * WIDTH
    mean, deviation = (part.double() for part in moments(states))

    def seen(rows: Tensor) -> np.ndarray:
        constant = torch.full((len(rows), 1), strength**0.5, dtype=torch.float64)
        return torch.cat([(rows.double() - mean) / deviation, constant], dim=1).numpy()

    oracle = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=10_000)
    oracle.fit(seen(states), labels.numpy())
    found = probe_logits(test, fitted(states, labels, torch.zeros(CLASSES, WIDTH), penalty)).softmax(dim=1)
    np.testing.assert_allclose(found.numpy(), oracle.predict_proba(seen(test)), atol=1e-4)


@pytest.mark.parametrize("count", [6, 90])
def test_no_other_weights_are_more_probable(count: int) -> None:
    """The formula of the module's docstring, by autograd in float64 over all weights, where the fit ended."""
    states, labels = rows_of(count)
    centre, deviation = moments(states)
    rows = prior_rows(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1)), states, centre)
    found = fit_prior(states, labels, rows, centre, deviation, 0.5)
    x = ((states - centre) / deviation).double()
    scale = found["scale"].double().requires_grad_()
    expected = (rows * deviation).double()
    free = (found["weight"] * deviation - found["scale"] * expected).double().detach().requires_grad_()
    bias = (found["bias"] + found["weight"] @ centre).double().detach().requires_grad_()
    logits = scale * (x @ expected.T) + x @ free.T + bias
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    loss = loss + (0.5 * WIDTH * free.square().sum() + bias.square().sum() + ((scale - 1) / 0.3).square()) / 2
    for gradient in torch.autograd.grad(loss, (scale, free, bias)):
        assert gradient.abs().max() < 1e-2 * max(1, count / 30)


def test_a_strong_penalty_leaves_the_prior() -> None:
    states, labels = rows_of(6)
    centre, deviation = moments(states)
    rows = prior_rows(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1)), states, centre)
    found = fit_prior(states, labels, rows, centre, deviation, 1e9)
    torch.testing.assert_close(found["weight"], found["scale"] * rows, rtol=1e-4, atol=1e-6)


def test_a_class_without_a_row_keeps_what_the_prior_says_of_it() -> None:
    states, labels = rows_of(90)
    centre, deviation = moments(states)
    rows = prior_rows(torch.eye(CLASSES, WIDTH), states, centre)
    there = labels != 2
    found = fit_prior(states[there], labels[there], rows, centre, deviation, 1.0)
    assert torch.nn.functional.cosine_similarity(found["weight"][2] * deviation, rows[2] * deviation, dim=0) > 0.9


def test_a_prior_is_on_the_first_layer_alone() -> None:
    states, labels = rows_of(90)
    both = torch.cat([states, torch.randn(90, 4, generator=torch.Generator().manual_seed(3))], dim=1)
    centre, deviation = moments(both)
    rows = prior_rows(torch.eye(CLASSES, WIDTH), both, centre)
    assert rows.shape == (CLASSES, WIDTH)
    weight = fit_prior(both, labels, rows, centre, deviation, 1e9)["weight"]
    assert weight[:, WIDTH:].abs().max() < 1e-6


def test_each_prior_rows_logits_deviate_by_one() -> None:
    states, _ = rows_of(90)
    centre = states.mean(dim=0)
    rows = prior_rows(torch.randn(CLASSES, WIDTH) * 100, states, centre)
    deviation = ((states - centre) @ rows.T).std(dim=0, correction=0)
    torch.testing.assert_close(deviation, torch.ones(CLASSES), rtol=1e-4, atol=0)


def test_one_state_tells_no_deviation() -> None:
    with pytest.raises(InputError, match="the rows of 3 labels give 1 states no logits that differ"):
        prior_rows(torch.eye(CLASSES, WIDTH), torch.ones(1, WIDTH), torch.ones(WIDTH))


def test_states_that_are_not_finite_are_refused() -> None:
    states, labels = rows_of(6)
    broken = states.clone()
    broken[0, 0] = torch.nan
    with pytest.raises(InputError, match="the training states hold values that are not finite"):
        fit_prior(broken, labels, torch.zeros(CLASSES, WIDTH), *moments(states), 0.1)
