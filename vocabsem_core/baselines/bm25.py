"""BM25 ranking of texts, by bm25s (Lucene's form of the formula, k1 = 1.5, b = 0.75)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import bm25s
import numpy as np

K1, B = 1.5, 0.75


def ranked(queries: Sequence[str], documents: Sequence[str], k: int) -> Iterator[np.ndarray]:
    """For each query the numbers of the k documents of highest score, best first; of equal ones the earlier first.

    Words are lower-cased runs of two or more letters or digits; none is left out for being common, none is stemmed
    (ours: tasks may be in any language).
    """
    index, held = bm25s.BM25(k1=K1, b=B, method="lucene"), _words(documents)
    if any(held):
        index.index(held, show_progress=False)
    for words in _words(queries):
        known = index.get_tokens_ids(words) if any(held) else []
        scores = index.get_scores_from_ids(known) if known else np.zeros(len(documents))
        yield np.argsort(-scores, kind="stable")[:k]


def _words(texts: Sequence[str]) -> list[list[str]]:
    return bm25s.tokenize(list(texts), stopwords=None, return_ids=False, show_progress=False)
