"""Linear probe: multinomial logistic regression on standardised states, scikit-learn's."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from vocabsem_core.errors import InputError

MAX_ITERATIONS = 2000


def fit_probe(
    states: Float[Tensor, "n d"], labels: Int[Tensor, " n"], n_classes: int, inverse_penalty: float
) -> dict[str, Tensor]:
    """Weights [c, d] and bias [c] of the classes, in the space of the states as given (the standardisation folded in).

    Args:
        states: n training states.
        labels: class numbers from 0.
        n_classes: c, two at least; every class needs a row.
        inverse_penalty: scikit-learn's C; smaller is stronger L2.

    Raises InputError where a class has no row, or there are fewer than two.
    """
    if len(labels.unique()) != n_classes or n_classes < 2:
        raise InputError(
            f"the training rows hold classes {labels.unique().tolist()}; a probe needs every class, and two at least"
        )
    mean, deviation = states.mean(dim=0), states.std(dim=0, correction=0).clamp_min(1e-6)
    model = LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS)
    model.fit(((states - mean) / deviation).numpy(), labels.numpy())
    weight, bias = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if n_classes == 2:  # scikit-learn gives the second class's row alone
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    weight = weight / deviation
    return {"weight": weight, "bias": bias - weight @ mean}
