"""kNN-Prompting against its rule written out: KL between full distributions, majority of the nearest."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr

from vocabsem_core.baselines.knn import shares, smallest
from vocabsem_core.baselines.knn_prompting import divergences
from vocabsem_core.features.heads import OutputHead

WIDTH, VOCABULARY, CLASSES = 6, 40, 3


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


WEIGHT, BIAS = drawn(VOCABULARY, WIDTH, seed=0), drawn(VOCABULARY, seed=1)
HEADS = {
    "plain": OutputHead(WEIGHT),
    "bias and scale": OutputHead(WEIGHT, BIAS, scale=0.5),
    "soft cap": OutputHead(WEIGHT, BIAS, softcap=2.0),
}
ANCHORS, QUERIES, LABELS = drawn(300, WIDTH, seed=2), drawn(270, WIDTH, seed=3), torch.arange(300) % CLASSES


def original_rule(head: OutputHead, k: int) -> list[int]:
    """For each query: KL(anchor || query) over the vocabulary, the k smallest, the class most often among them."""
    anchors, queries = (head.logits(states).softmax(dim=1).numpy() for states in (ANCHORS, QUERIES))
    found = []
    for query in queries:
        distances = [rel_entr(anchor, query).sum() / VOCABULARY for anchor in anchors]
        nearest = np.argsort(distances, kind="stable")[:k]
        found.append(int(np.bincount(LABELS.numpy()[nearest], minlength=CLASSES).argmax()))
    return found


@pytest.mark.parametrize("name", HEADS)
def test_divergences_are_those_of_the_whole_distributions(name):
    head = HEADS[name]
    anchors, queries = (head.logits(states).softmax(dim=1).numpy() for states in (ANCHORS, QUERIES))
    expected = np.stack([rel_entr(anchors, query).sum(axis=1) for query in queries])
    np.testing.assert_allclose(divergences(QUERIES, ANCHORS, head).numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("k", [1, 3, 8])
def test_labels_are_those_of_the_original_rule(name, k):
    rows = smallest(divergences(QUERIES, ANCHORS, HEADS[name]), k)[1]
    found = shares(LABELS[rows], CLASSES).argmax(dim=1)
    assert found.tolist() == original_rule(HEADS[name], k)
