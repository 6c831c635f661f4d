"""Numbers that say what a layer's states mean in the vocabulary's terms. Each is of states, logits or predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

_SMALLEST = 1e-12  # of a norm
_NEVER = -80.0  # log-probability that adds nothing; smaller numbers than its power take ten times as long


def label_ranks(logits: Float[Tensor, "n v"], tokens: Sequence[int]) -> Int[Tensor, " n"]:
    """The rank of the best of the label words' tokens among the whole vocabulary, 1 being the top, by row."""
    best = logits[:, list(tokens)].max(dim=1, keepdim=True).values
    return 1 + (logits > best).sum(dim=1, dtype=torch.int32)  # twice as fast as int64


def entropies(logits: Float[Tensor, "n v"]) -> Float[Tensor, " n"]:
    """The entropy of softmax(logits) by row, in nats: 0 is one word, log v is all words alike."""
    log_p = torch.log_softmax(logits.float(), dim=1).clamp_min(_NEVER)
    return -(log_p.exp() * log_p).sum(dim=1)


def settle_layers(predictions: Int[Tensor, "layers n"]) -> Int[Tensor, " n"]:
    """For each row the first layer from which on the prediction is that of the last layer."""
    differs = predictions != predictions[-1]
    layers = torch.arange(1, len(predictions) + 1).unsqueeze(1)
    return (differs * layers).max(dim=0).values


def recomposition(head: Float[Tensor, "v d"], rows: Float[Tensor, "v e"]) -> Float[Tensor, "d e"]:
    """M with h M = Σ_i (w_i · h) r_i: a state taken apart into logits and put together from other rows.

    Blocks are multiplied in float32 and added up in float64.
    """
    found = torch.zeros(head.shape[1], rows.shape[1], dtype=torch.float64)
    for weight, part in zip(head.split(4096), rows.split(4096), strict=True):
        found += (weight.float().T @ part.float()).double()
    return found


def recomposed(states: Float[Tensor, "n d"], matrix: Float[Tensor, "d d"]) -> Float[Tensor, " n"]:
    """Cosine of each state and its recomposition: 1 where the rows give the whole state back."""
    return functional.cosine_similarity(states.double(), states.double() @ matrix, dim=1, eps=_SMALLEST).float()


def class_cosines(states: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> tuple[float, float]:
    """Mean cosine of two states of one class, and of two of different classes.

    Both near 1: all states point one way. The paper's picture of semantic clusters is a high first and a low second.
    """
    units = functional.normalize(states.double(), dim=1)
    sums = torch.zeros(int(labels.max()) + 1, units.shape[1], dtype=torch.float64).index_add_(0, labels, units)
    counts = torch.bincount(labels).double()
    lengths, whole = sums.square().sum(dim=1), sums.sum(dim=0).square().sum()
    inside, pairs = (lengths - counts).sum(), (counts * (counts - 1)).sum()
    between, others = whole - lengths.sum(), counts.sum() ** 2 - counts.square().sum()
    return float(inside / pairs.clamp_min(1)), float(between / others.clamp_min(1))


def clusters(states: Float[Tensor, "n d"], count: int, seed: int) -> Int[Tensor, " n"]:
    """Cluster numbers by k-means, the best of four starts; one cluster where all states are the same."""
    from sklearn.cluster import KMeans

    if bool((states == states[0]).all()):
        return torch.zeros(len(states), dtype=torch.long)
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(states.numpy())
    return torch.from_numpy(found.astype(np.int64))


def rand_index(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> float:
    """The adjusted Rand index of two partitions of the same rows (the paper's table 8): 1 equal, 0 as by chance."""
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1)).sum() / 2)

    both, first, second = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    chance = first * second / max(len(one) * (len(one) - 1) / 2, 1)
    most = (first + second) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)
