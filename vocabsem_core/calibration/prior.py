"""Semantic prior: logistic regression whose weights are expected at the label words' rows, not at zero (ours).

With x the states centred and standardised, and q_c the label's row in that space, the logits are

    s x·q_c + x·d_c + b_c

and what is fitted is the most probable s, d and b for s ~ N(1, 0.3²), d ~ N(0, 1 / λ), b ~ N(0, 1): without a row that
is the centred affinity, with many it is a linear probe. One state's free part x·d_c has a prior variance of d / λ, so λ
is given as a share of the width: models of any width are then held alike.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.semantics.centring import States, centred_rows

_SCALE_DEVIATION = 0.3  # of s around 1
_CHUNK = 4096  # rows projected at a time
_MOST_STEPS = 1000
_NEAR = 1e-3  # how far from the best a fit may end, in prior deviations of what is learned


def prior_rows(rows: Float[Tensor, "c d"], states: States, centre: Float[Tensor, " read"]) -> Float[Tensor, "c d"]:
    """Label rows seen from their mean, each scaled so that its logits of the centred states deviate by 1.

    Args:
        rows: a row per class.
        states: the rows that say what deviates, labelled or not. Of what they hold the first d numbers are compared.
        centre: their mean.

    Raises InputError where a label's row cannot be told from the others' mean, or no state from another.
    """
    apart, width = centred_rows(rows.double()), rows.shape[1]
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for part in torch.arange(states.shape[0]).split(_CHUNK):
        seen = states[part].double()[:, :width] - centre[:width].double()
        squares += (seen @ apart.T).square().sum(dim=0)
    deviation = (squares / states.shape[0]).sqrt()
    if not bool((deviation > torch.finfo(torch.float32).eps * apart.norm(dim=1).max()).all()):
        raise InputError(
            f"the rows of {len(rows)} labels give {states.shape[0]} states no logits that differ; expected label words "
            "with rows of their own, and two states or more"
        )
    return (apart / deviation.unsqueeze(1)).float()


def fit_prior(
    states: Float[Tensor, "n read"],
    labels: Int[Tensor, " n"],
    rows: Float[Tensor, "c d"],
    centre: Float[Tensor, " read"],
    deviation: Float[Tensor, " read"],
    penalty: float,
) -> dict[str, Tensor]:
    """Weights [c, read] and bias [c] of the classes in the space of the states as given, and the scale s of the prior.

    Args:
        states: n training states, of one layer or of several side by side; the prior is on the first d numbers.
        labels: class numbers from 0. A class without a row keeps what the prior says of it.
        rows: the classes' rows as `prior_rows` gives them; zeros: no prior, a linear probe.
        centre, deviation: of each dimension, by which the states are standardised.
        penalty: λ over the number of dimensions that are read.

    Raises InputError for states that are not finite, and where the fit does not end.
    """
    if not bool(torch.isfinite(states).all()):
        raise InputError("the training states hold values that are not finite")
    x = ((states - centre) / deviation).double().numpy()
    classes, (count, read) = len(rows), x.shape
    expected = np.zeros((classes, read))
    expected[:, : rows.shape[1]] = (rows * deviation[: rows.shape[1]]).double().numpy()
    prior, root = x @ expected.T, np.sqrt(penalty * read)
    right = np.linalg.svd(x, full_matrices=False)[2] if count < read else np.eye(read)  # d lies among the rows of x
    x, truth = x @ right.T / root, np.eye(classes)[labels.numpy()]

    def parts(flat: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return flat[0], flat[1 : 1 + classes], flat[1 + classes :].reshape(classes, -1)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Of s, b and d in their deviations, so that each is expected to be N(0, 1)."""
        scale, bias, free = parts(flat)
        logits = (1 + _SCALE_DEVIATION * scale) * prior + x @ free.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        sums = np.exp(logits).sum(axis=1, keepdims=True)
        off = np.exp(logits) / sums - truth
        value = np.log(sums).sum() - (logits * truth).sum() + (flat @ flat) / 2
        slopes = np.concatenate([[_SCALE_DEVIATION * (off * prior).sum()], off.sum(axis=0), (off.T @ x).ravel()])
        return value, slopes + flat

    start = np.zeros(1 + classes + classes * len(right))
    options = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "ftol": 0.0, "gtol": _NEAR / 100}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    off = float(np.linalg.norm(loss(found.x)[1]))  # no more than this away: the curvature is 1 at least
    if off > _NEAR:
        raise InputError(f"the fit has not ended after {found.nit} steps ({off:.2g} away); raise the penalty")
    scale, bias, free = parts(found.x)
    scale = 1 + _SCALE_DEVIATION * scale
    weight = torch.from_numpy(scale * expected + free @ right / root) / deviation.double()
    return {
        "weight": weight.float(),
        "bias": (torch.from_numpy(bias) - weight @ centre.double()).float(),
        "scale": torch.tensor(scale, dtype=torch.float32),
    }
