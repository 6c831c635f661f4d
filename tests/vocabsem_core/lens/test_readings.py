"""Readings and bases of layers against loops in float64 and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score

from vocabsem_core.errors import InputError
from vocabsem_core.lens import readings
from vocabsem_core.lens.layer_basis import depth_of, fit_affine, interpolated
from vocabsem_core.semantics.basis import semantic_basis

GENERATOR = torch.Generator().manual_seed(0)
STATES = torch.randn(30, 6, generator=GENERATOR)
HEAD = torch.randn(50, 6, generator=GENERATOR)
LABELS = torch.arange(30) % 3


def test_ranks_and_entropies_are_those_of_a_loop() -> None:
    logits = STATES @ HEAD.T
    ranks = [1 + sum(float(x) > max(float(row[4]), float(row[7])) for x in row) for row in logits]
    assert readings.label_ranks(logits, [4, 7]).tolist() == ranks
    for row, found in zip(logits.double(), readings.entropies(logits), strict=True):
        weights = [math.exp(x) for x in row.tolist()]
        expected = -sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights)
        assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_prediction_settles_where_it_changes_no_more() -> None:
    predictions = torch.tensor([[0, 1, 2], [1, 1, 2], [0, 0, 2], [0, 1, 2]])
    assert readings.settle_layers(predictions).tolist() == [2, 3, 0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=40))
def test_the_rand_index_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(numbers) for numbers in zip(*pairs, strict=True))
    assert readings.rand_index(one, other) == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)


def test_cosines_inside_and_between_classes_are_those_of_all_pairs() -> None:
    inside, between = [], []
    for i in range(30):
        for j in range(30):
            if i != j:
                cosine = float(torch.cosine_similarity(STATES[i].double(), STATES[j].double(), dim=0))
                (inside if LABELS[i] == LABELS[j] else between).append(cosine)
    found = readings.class_cosines(STATES, LABELS)
    assert found == pytest.approx((sum(inside) / len(inside), sum(between) / len(between)))


def test_clusters_that_lie_apart_are_found() -> None:
    states = STATES + 50 * torch.nn.functional.one_hot(LABELS, 6)
    found = readings.clusters(states, 3, seed=0)
    assert readings.rand_index(found.numpy(), LABELS.numpy()) == 1.0


def test_a_state_is_put_together_again_from_its_logits_by_the_basis_and_not_by_the_embedding() -> None:
    basis = semantic_basis([HEAD]).rows(HEAD)
    whole = readings.recomposed(STATES, readings.recomposition(HEAD, basis))
    torch.testing.assert_close(whole, torch.ones(30))  # of full rank: by construction
    other = torch.randn(50, 6, generator=GENERATOR)
    found = readings.recomposed(STATES, readings.recomposition(HEAD, other))
    for row, cosine in zip(STATES.double(), found, strict=True):
        made = sum((weight.double() @ row) * label.double() for weight, label in zip(HEAD, other, strict=True))
        assert float(cosine) == pytest.approx(float(torch.cosine_similarity(row, made, dim=0)), abs=1e-6)
    assert float(found.mean()) < 0.9


def test_rows_between_the_two_sides() -> None:
    embedding, basis = HEAD[:2] * 7, HEAD[2:4]
    assert torch.equal(interpolated(embedding, basis, 0.0, raw=True), embedding)
    assert torch.equal(interpolated(embedding, basis, 1.0, raw=True), basis)
    units = [rows / rows.norm(dim=1, keepdim=True) for rows in (embedding, basis)]
    torch.testing.assert_close(interpolated(embedding, basis, 0.25), 0.75 * units[0] + 0.25 * units[1])
    with pytest.raises(InputError, match="leave out the bases"):
        interpolated(torch.ones(2, 3), basis, 0.5)
    assert [depth_of(layer, "layer_04") for layer in ("layer_00", "layer_01", "layer_04", "head")] == [0, 0.25, 1, 1]


def test_the_affine_map_is_scikit_learns_ridge_of_what_is_missing() -> None:
    last = STATES @ torch.randn(6, 6, generator=GENERATOR) + 0.1 * torch.randn(30, 6, generator=GENERATOR)
    found = fit_affine(STATES, last)
    x, missing = STATES.double().numpy(), (last - STATES).double().numpy()
    deviation = x.std(axis=0, ddof=1)
    ridge = Ridge(alpha=found.penalty * 30).fit((x - x.mean(axis=0)) / deviation, missing)
    expected = x + ridge.predict((x - x.mean(axis=0)) / deviation)
    np.testing.assert_allclose(found(STATES).numpy(), expected, atol=1e-5)
    held = np.arange(30) % 5 == 0
    errors = {}
    for penalty in (1e-3, found.penalty, 1e4):
        z = (x[~held] - x[~held].mean(axis=0)) / x[~held].std(axis=0, ddof=1)
        part = Ridge(alpha=penalty * 24).fit(z, missing[~held])
        seen = (x[held] - x[~held].mean(axis=0)) / x[~held].std(axis=0, ddof=1)
        gaps = (missing[held] - part.predict(seen)) / last.double().numpy().std(axis=0, ddof=1)
        errors[penalty] = (gaps**2).mean()
    assert errors[found.penalty] == min(errors.values())


def test_an_affine_map_shrinks_to_the_logit_lens_and_needs_some_rows() -> None:
    noise = torch.randn(30, 6, generator=torch.Generator().manual_seed(5))
    assert float(fit_affine(STATES, STATES + noise).weight.norm()) < 0.6
    with pytest.raises(InputError, match="9 rows were given for an affine map; expected ten or more"):
        fit_affine(STATES[:9], STATES[:9])
