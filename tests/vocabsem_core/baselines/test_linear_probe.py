"""The linear probe against scikit-learn's pipeline on the same states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vocabsem_core.baselines.linear import probe_logits
from vocabsem_core.baselines.linear_probe import fit_probe
from vocabsem_core.errors import InputError


def classes(n_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Overlapping classes in dimensions of unlike scale and place."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(120) % n_classes
    centres = torch.randn(n_classes, 6, generator=torch.Generator().manual_seed(9))
    states = centres[labels] + torch.randn(120, 6, generator=generator)
    return states * torch.tensor([0.01, 1, 1, 10, 100, 1]) + torch.tensor([0, 5, -5, 0, 1000, 0]), labels


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("inverse_penalty", [0.01, 1.0, 10.0])
def test_classes_and_probabilities_are_scikit_learns(n_classes: int, inverse_penalty: float) -> None:
    (train, labels), (test, _) = classes(n_classes, seed=0), classes(n_classes, seed=1)
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=2000))
    oracle.fit(train.double().numpy(), labels.numpy())
    logits = probe_logits(test, fit_probe(train, labels, n_classes, inverse_penalty))
    assert logits.argmax(dim=1).tolist() == oracle.predict(test.double().numpy()).tolist()
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), oracle.predict_proba(test.double().numpy()), atol=2e-3)


def test_two_classes_have_a_row_each() -> None:
    train, labels = classes(2, seed=0)
    weights = fit_probe(train, labels, 2, 1.0)
    assert weights["weight"].shape == (2, 6)
    assert weights["bias"].shape == (2,)


def test_a_constant_dimension_does_no_harm() -> None:
    train, labels = classes(3, seed=0)
    train[:, 2] = 0.1
    test = classes(3, seed=1)[0]
    test[:, 2] = 0.1
    with_it = probe_logits(test, fit_probe(train, labels, 3, 1.0))
    keep = [0, 1, 3, 4, 5]
    without = probe_logits(test[:, keep], fit_probe(train[:, keep], labels, 3, 1.0))
    torch.testing.assert_close(with_it.softmax(dim=1), without.softmax(dim=1), rtol=0, atol=5e-3)


def test_the_same_rows_give_the_same_probe() -> None:
    train, labels = classes(3, seed=0)
    first, second = fit_probe(train, labels, 3, 1.0), fit_probe(train, labels, 3, 1.0)
    assert all(torch.equal(first[name], second[name]) for name in ("weight", "bias"))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 2, 0, 2], [1, 1, 2, 2], [0, 0, 1, 1]])
def test_a_missing_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(InputError, match="needs every class, and two at least"):
        fit_probe(torch.randn(4, 3), torch.tensor(labels), 3, 1.0)
