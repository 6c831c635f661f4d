"""Whether a run could read the rows of a task under a model, told by the tokenizer alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vocabsem_core.errors import InputError
from vocabsem_core.features.prompts import tokenize
from workflows.inputs.tables import row_names


@dataclass(frozen=True)
class Reader:
    """How a model reads the prompts of a task.

    Attributes:
        tokenizer, kind: of the model.
        template: of the task.
        limit: tokens of a prompt at most.
        vocabulary: how many tokens the model has.
    """

    tokenizer: Any
    template: str
    limit: int
    kind: str
    vocabulary: int

    def check_template(self, fields: Sequence[str]) -> None:
        """Raises InputError where the template alone is no prompt of the model."""
        self._read(dict.fromkeys(fields, ""), "the template alone")

    def row_problems(self, rows: Iterable[tuple[int, Mapping[str, str]]], file: str) -> list[str]:
        """What is wrong with rows, given with their numbers in the file, from 0."""
        problems = []
        for number, row in rows:
            if self._is_doubtful(row):
                try:
                    self._read(row, *row_names([number], f"{file}: "))
                except InputError as error:
                    problems.append(str(error))
        return problems

    def _read(self, row: Mapping[str, str], name: str) -> None:
        closing = self.kind != "causal"
        tokenize(self.tokenizer, self.template, [row], self.limit, closing, names=[name], vocabulary=self.vocabulary)

    def _is_doubtful(self, row: Mapping[str, str]) -> bool:
        """Whether a text may hold a mask or a token that the model lacks. Few do, and to tokenise all takes long."""
        if self._more_tokens:
            return True
        mask = str(self.tokenizer.mask_token).lower()  # a tokenizer may lower case before it looks for it
        return self.kind == "masked" and any(mask in text.lower() for text in row.values())

    @cached_property
    def _more_tokens(self) -> bool:
        """Whether the tokenizer has tokens that the model lacks."""
        return max(self.tokenizer.get_vocab().values()) >= self.vocabulary
