"""Where demonstrations come from, and which training rows are the nearest to a prompt that they stand before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from orchestration.store.arrow import ROW_ID
from orchestration.store.artifacts import Artifact
from workflows.inputs.tables import fields_of
from workflows.methods.inputs.split import check_has_rows, split_rows
from workflows.methods.inputs.states import labels_of, read_column

Row = Mapping[str, str]


class Pool:
    """A seeded subsample of the training rows, without the validation rows.

    Args:
        texts, labels: of the training rows.
        identity: of a step that makes demonstrations: words, train_size and seed are read.

    Attributes:
        rows: the prompt fields of every row.
        ids, labels: [n], their row ids and class numbers.
        train, validation: row numbers.
        by_class: of `train` those of each class, by hash, so that their order in the file does not matter.
    """

    def __init__(self, texts: Artifact, labels: Artifact, identity: Mapping[str, Any]) -> None:
        names = [label for label, _ in identity["words"]]
        self.rows, self.ids = fields_of(texts), read_column(texts, ROW_ID)
        self.labels = labels_of(texts, labels)
        check_has_rows(self.labels, names)
        hashes = read_column(texts, "row_hash")
        self.train, self.validation = split_rows(
            self.labels, hashes, len(names), identity["train_size"], identity["seed"]
        )
        mine = [self.train[self.labels[self.train] == number] for number in range(len(names))]
        self.by_class = [rows[np.argsort(hashes[rows], kind="stable")].tolist() for rows in mine]


@dataclass(frozen=True)
class Retrieval:
    """The training rows nearest to a prompt, as many as its window holds.

    Attributes:
        pool: the rows to choose from.
        identity: of a step that retrieves: kind, template, words, shots, max_tokens and demonstration_tokens are read.
        tokenizer: that counts tokens.
        states: of the training rows, where the nearest are sought by state.
    """

    pool: Pool
    identity: Mapping[str, Any]
    tokenizer: Any
    states: Tensor | None = None

    @cached_property
    def from_rows(self) -> list[int]:
        """Row numbers, by hash: the file's order breaks no tie."""
        return [row for mine in self.pool.by_class for row in mine]

    @cached_property
    def texts(self) -> list[str]:
        """Each of them as it stands before a prompt."""
        from vocabsem_core.baselines.demonstrations import demonstration

        template, pool, words = self.identity["template"], self.pool, [word for _, word in self.identity["words"]]
        return [demonstration(template, pool.rows[row], words[pool.labels[row]]) for row in self.from_rows]

    @property
    def budget(self) -> int:
        """Tokens that demonstrations may take in all."""
        return self.identity.get("demonstration_tokens", self.identity["max_tokens"])

    def counts(self, rows: Sequence[Row]) -> list[int]:
        """Tokens of each row's own prompt."""
        from vocabsem_core.baselines.demonstrations import token_counts

        return token_counts(self.tokenizer, self.identity["template"], rows)

    @cached_property
    def costs(self) -> list[int]:
        """Tokens of each of `texts`."""
        from vocabsem_core.baselines.demonstrations import token_counts

        template, first = self.identity["template"], self.pool.rows[self.from_rows[0]]
        (bare,) = token_counts(self.tokenizer, template, [first])
        return [count - bare for count in token_counts(self.tokenizer, template, [first] * len(self.texts), self.texts)]

    def taken(
        self, rows: Sequence[Row], states: Tensor | None = None, themselves: Sequence[int | None] | None = None
    ) -> Iterator[tuple[list[int], bool]]:
        """For each row the places in `texts` of its demonstrations, the nearest last, and whether the budget cut them.

        Args:
            rows: the fields of their prompts.
            states: of their bare prompts, where the nearest are sought by state.
            themselves: of each row its number in the pool, where it is one of it: it does not stand before itself.
        """
        from vocabsem_core.baselines.demonstrations import that_fit

        identity, budget = self.identity, self.budget
        most, limit = identity["shots"] * len(identity["words"]), identity["max_tokens"]
        near = self._nearest(rows, states, most + 1)
        for own, itself, found in zip(self.counts(rows), themselves or [None] * len(rows), near, strict=True):
            others = [int(place) for place in found if itself is None or self.from_rows[place] != itself][:most]
            kept = that_fit(others, self.costs, min(limit - own, budget))
            yield kept, len(kept) < len(others) and budget < limit - own

    def _nearest(self, rows: Sequence[Row], states: Tensor | None, k: int) -> Iterator[Any]:
        """For each row the places of its k nearest, nearest first."""
        if self.identity["kind"] == "bm25":
            from vocabsem_core.baselines.bm25 import ranked

            documents = [" ".join(self.pool.rows[row].values()) for row in self.from_rows]
            yield from ranked([" ".join(row.values()) for row in rows], documents, k)
            return
        from vocabsem_core.baselines.knn import nearest

        assert states is not None, "the nearest by state"
        assert self.states is not None, "the nearest by state"
        yield from nearest(states, self.states[self.from_rows], k, "cosine")[1].numpy()
