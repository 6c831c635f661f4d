"""BM25 against its formula written out (Lucene's form)."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import pytest

from vocabsem_core.baselines.bm25 import K1, B, ranked

WORDS = ["market", "team", "film", "music", "goal", "share", "price", "actor", "song", "match", "stock", "scene"]
DRAW = np.random.default_rng(0)
DOCUMENTS = [" ".join(DRAW.choice(WORDS, size=DRAW.integers(3, 15))) for _ in range(60)]
QUERIES = [" ".join(DRAW.choice(WORDS, size=DRAW.integers(1, 8))) for _ in range(25)]


def scores(query: str) -> list[float]:
    """sum over the query's words of idf · tf / (tf + k1 (1 - b + b length / mean length))."""
    documents = [Counter(re.findall(r"\w\w+", document.lower())) for document in DOCUMENTS]
    mean = sum(counts.total() for counts in documents) / len(documents)
    found = []
    for counts in documents:
        total = 0.0
        for word in re.findall(r"\w\w+", query.lower()):
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            total += idf * counts[word] / (counts[word] + K1 * (1 - B + B * counts.total() / mean))
        found.append(total)
    return found


def test_ranks_are_those_of_the_formula() -> None:
    for query, found in zip(QUERIES, ranked(QUERIES, DOCUMENTS, len(DOCUMENTS)), strict=True):
        by_hand = np.array(scores(query))
        assert sorted(found.tolist()) == list(range(len(DOCUMENTS)))
        np.testing.assert_allclose(by_hand[found], np.sort(by_hand)[::-1], rtol=1e-5)


def test_only_the_best_come_back_and_equal_ones_in_order() -> None:
    (found,) = ranked(["goal"], ["goal team", "music", "team goal", "goal goal"], 3)
    assert found.tolist() == [3, 0, 2]


@pytest.mark.parametrize("query", ["", "unheard", "a ."])
def test_a_query_without_a_known_word_ranks_nothing_before_another(query: str) -> None:
    (found,) = ranked([query], ["goal team", "music"], 5)
    assert found.tolist() == [0, 1]


def test_documents_without_words_can_be_ranked() -> None:
    (found,) = ranked(["goal"], ["!", "?"], 2)
    assert found.tolist() == [0, 1]
