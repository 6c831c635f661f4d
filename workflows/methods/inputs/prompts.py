"""What a method that runs the language model sees of a task: the model, and prompts in the place of stored states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from orchestration.store.arrow import ROW_ID, read_table
from orchestration.store.artifacts import Artifact
from vocabsem_core.finetuning.trainer import Classifier, Prompts
from workflows.inputs.labels import rows_of, smaller_labels
from workflows.inputs.tables import field_columns, fields_of, row_names
from workflows.methods.inputs.split import check_has_rows, split_rows
from workflows.methods.inputs.states import labels_of, read_column

if TYPE_CHECKING:
    from vocabsem_core.features.prompts import Prompt


@dataclass(frozen=True)
class LabelledPrompts:
    """Prompts with their class numbers, [n]."""

    prompts: Prompts
    labels: Tensor


@dataclass(frozen=True)
class Texts:
    """One task's prompts and label words, and the model that reads them.

    Attributes:
        inputs: role -> artifact: train_texts, train_labels, verbalizer, and test_texts for predictions.
        reading: what decides the prompts and the model: see `steps.finetune.reading_of`.
        folder, stamp: the model's files.
        labels: label names in class order.
        train_size: rows per class (validation included) or "full".
        seed: of the subsample.
        most: training rows at most, those of smallest hash; None: all.
        fold: which fifth of the training rows is held out for validation, from 0.
        vocabulary: how many tokens the model has; None: those of prompts are not checked.
        device: where the model runs.
    """

    inputs: Mapping[str, Artifact]
    reading: Mapping[str, Any]
    folder: Path
    stamp: str
    labels: list[str]
    train_size: int | Literal["full"]
    seed: int
    most: int | None = None
    fold: int = 0
    vocabulary: int | None = None
    device: str = "cpu"

    @cached_property
    def model(self) -> Any:
        """The language model. Weights in float16 are taken as float32: their training would overflow."""
        dtype = self.reading["dtype"]
        content = (self.reading["model"], self.reading["tokenizer"])
        return _model(self.folder, self.stamp, content, "float32" if dtype == "float16" else dtype, self.device)

    @cached_property
    def classifier(self) -> Classifier:
        """The model read by the task's label words; its products are in bfloat16 where the plan found that fast."""
        tokens = self.inputs["verbalizer"].json("verbalizer.json")["tokens"]
        classifier = Classifier(self.model, tokens, self.reading.get("products", self.reading["dtype"]) == "bfloat16")
        classifier.check(self.stored_validation.prompts if "train_texts" in self.inputs else self._first)
        return classifier

    @property
    def stored_train(self) -> LabelledPrompts:
        """Prompts and class numbers of the training rows without the validation rows."""
        return self._labelled[0]

    @property
    def stored_validation(self) -> LabelledPrompts:
        """Those of the validation rows: the same rows that methods on stored states hold out."""
        return self._labelled[1]

    @property
    def held_out(self) -> tuple[Prompts, Tensor]:
        """The validation rows' prompts, and their class numbers."""
        return self.stored_validation.prompts, self.stored_validation.labels

    @cached_property
    def test(self) -> Prompts:
        """The prompts of the test rows."""
        return read_prompts(self._tokenized["test_texts"])

    @property
    def _first(self) -> Prompts:
        """The first prompts that there are."""
        rows = field_columns(read_table(self.inputs["test_texts"].shard(0))).slice(0, 2)
        return read_prompts(self.prompts_of(rows.to_pylist()))

    @property
    def has_validation(self) -> bool:
        """Whether the validation rows are others than those that are learned from."""
        _, _, kept, held = self._split
        return not np.array_equal(kept, held)

    @property
    def cut(self) -> dict[str, dict[str, int]]:
        """Of each role's rows, how many prompts lost text tokens so that they fit, and how many tokens that were."""
        cuts = {role: [prompt.cut for prompt in found] for role, found in self._tokenized.items()}
        return {
            role: {"rows": len(cut), "prompts": sum(tokens > 0 for tokens in cut), "tokens": sum(cut)}
            for role, cut in cuts.items()
        }

    @property
    def smaller_classes(self) -> dict[str, int]:
        """Labels with fewer rows than the training size asks for, and how many they have."""
        size = self.train_size
        return {} if size == "full" else smaller_labels(rows_of(self.labels, self._split[0].tolist()), size)

    @property
    def shortened(self) -> bool:
        """Whether there are more training rows than `most`."""
        return self.most is not None and len(self._split[2]) > self.most

    @cached_property
    def _split(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Class numbers and hashes of all rows; row numbers for training and for validation."""
        texts = self.inputs["train_texts"]
        labels, hashes = labels_of(texts, self.inputs["train_labels"]), read_column(texts, "row_hash")
        check_has_rows(labels, self.labels)
        return labels, hashes, *split_rows(labels, hashes, len(self.labels), self.train_size, self.seed, self.fold)

    @cached_property
    def _labelled(self) -> tuple[LabelledPrompts, LabelledPrompts]:
        labels, hashes, kept, held = self._split
        classes = torch.from_numpy(labels.astype(np.int64))
        if self.shortened:
            kept = np.sort(kept[np.argsort(hashes[kept], kind="stable")[: self.most]])
        prompts = read_prompts(self._tokenized["train_texts"])
        first, second = (torch.from_numpy(rows) for rows in (kept, held))
        return LabelledPrompts(prompts[first], classes[first]), LabelledPrompts(prompts[second], classes[second])

    @cached_property
    def _tokenized(self) -> dict[str, list[Prompt]]:
        """By role."""
        tokenized = {}
        for role in ("train_texts", "test_texts"):
            if role in self.inputs:
                found = self.inputs[role]
                names = row_names(read_column(found, ROW_ID).tolist(), f"{role.removesuffix('_texts')} ")
                tokenized[role] = self.prompts_of(fields_of(found), names)
        return tokenized

    def prompts_of(self, rows: Sequence[Mapping[str, str]], names: Sequence[str] | None = None) -> list[Prompt]:
        """Rows as the encoder has them: the same template, truncation and special tokens."""
        from vocabsem_core.features.prompts import tokenize

        reading, closing = self.reading, self.reading["kind"] != "causal"
        how = {"limit": reading["max_tokens"], "closing": closing, "vocabulary": self.vocabulary, "names": names}
        return tokenize(self._tokenizer, reading["template"], rows, **how)

    @cached_property
    def _tokenizer(self) -> Any:
        from workflows.inputs.models import checked_tokenizer

        return checked_tokenizer(self.folder, self.reading["tokenizer"])


def read_prompts(found: Sequence[Prompt]) -> Prompts:
    """Prompts as a classifier takes them."""
    return Prompts([prompt.ids for prompt in found], [prompt.position for prompt in found])


@lru_cache(maxsize=1)
def _model(folder: Path, stamp: str, content: tuple[str, str], dtype: str, device: str) -> Any:
    """A model whose weights are not trained; the last one stays, for the next fit or trial in this process."""
    from vocabsem_core.features.checkpoints import load_model
    from workflows.inputs.models import check_unchanged

    check_unchanged(folder, stamp, dict(zip(("model", "tokenizer"), content, strict=True)))
    return load_model(folder, dtype, device).requires_grad_(False)
