"""Reads a text by every layer and position of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.config.task import prompt_template, row_tokens
from workflows.errors import ConfigError
from workflows.inputs.catalog import ModelEntry, Task, find_model
from workflows.inputs.models import find_files

if TYPE_CHECKING:
    from torch import Tensor

_NO_LIMIT = 1 << 30  # of tokens: a text that is too long is an error here, and not cut
_AT_ONCE = 256  # states that are compared with the vocabulary together: its rows are read once for all of them
TOP = 10  # words of the vocabulary at a layer and position


@dataclass(frozen=True)
class Read:
    """A text as every layer reads it.

    Attributes:
        text: as it was given.
        tokens: of the prompt, as text.
        position: the token whose state predicts the label, or the next word: the last, or the mask.
        layers: names, first to last; the last is `head`.
        words: [layer][position]: the words of highest probability and these, the highest first.
        labels: names of the task's labels; empty without one.
        chances: [layer][position][label]: the labels' probabilities among themselves; None without a task.
        states: [position, d] by layer, in the space of the LM head.
    """

    text: str
    tokens: list[str]
    position: int
    layers: list[str]
    words: list[list[list[tuple[str, float]]]]
    labels: list[str]
    chances: list[list[list[float]]] | None
    states: dict[str, Tensor]


class Compared(Protocol):
    """What a layer study says of a text: see `run.Chosen`."""

    def calibrated(self, read: Read) -> dict[str, Any]: ...
    def nearest(self, read: Read) -> list[dict[str, Any]]: ...


class Reader:
    """A model that is loaded once and reads text after text.

    Args:
        reference: catalog name, folder, YAML file or Hugging Face id.
        base: the folder that relative paths start from.
        task: whose template the text is put in, and whose labels are compared; None: the text alone.
        facts: remembers what is known of files.

    Raises ConfigError for what cannot be found, and InputError for a model whose blocks or tail cannot be found.
    """

    def __init__(self, reference: str, base: Path, task: Task | None, facts: FingerprintCache) -> None:
        from vocabsem_core.features.checkpoints import load_model, load_tokenizer
        from vocabsem_core.lens.trace import Tail

        entry: ModelEntry = find_model(reference, base)
        folder = find_files(entry, facts)
        self.name, self._task = entry.config.name, task
        self._tokenizer = load_tokenizer(folder)
        self.model = load_model(folder, "float32", "cpu")
        self._tail = Tail(self.model)
        if task is not None and len(self._fields) != 1:
            raise ConfigError(
                f"task {task.config.name!r} has the fields {', '.join(self._fields)}; a lens reads one text: leave out "
                "--task and give the whole prompt as the text"
            )

    def read(self, text: str) -> Read:
        """Raises ConfigError for a text that has no tokens, or more than the model's window holds."""
        import torch

        from vocabsem_core.lens.trace import trace
        from vocabsem_core.numerics.matmul import fast_float32

        ids, position = self._prompt(text)
        with fast_float32():
            states = trace(self.model, ids)
            names = [name for name in states if name != "head"]
            before = torch.cat([states[name] for name in names])
            seen = dict(zip(names, self._tail(before).split(len(ids)), strict=True))
            seen["head"] = states["head"]
            found = [self._over_vocabulary(part) for part in torch.cat(list(seen.values())).split(_AT_ONCE)]
        tops, values, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        words = [
            [(self._word(token), round(p, 4)) for token, p in zip(*pair, strict=True)]
            for pair in zip(tops.tolist(), values.tolist(), strict=True)
        ]
        chances = torch.softmax(logits, dim=1).tolist()
        shown, labels = [self._word(token) for token in ids], list(self._task.config.words) if self._task else []
        by_layer = range(0, len(words), len(ids))
        return Read(
            text,
            shown,
            position,
            list(seen),
            [words[start : start + len(ids)] for start in by_layer],
            labels,
            [chances[start : start + len(ids)] for start in by_layer] if labels else None,
            seen,
        )

    def _over_vocabulary(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest tokens of states [n, d] and their probabilities, [n, 10], and the labels' logits, [n, c]."""
        import torch

        logits = self._head.logits(states).float()
        top = logits.topk(TOP, dim=1)
        chances = (top.values - logits.logsumexp(dim=1, keepdim=True)).exp()
        labels = [logits[:, tokens].mean(dim=1) for tokens in self._label_tokens]
        return top.indices, chances, torch.stack(labels, dim=1) if labels else logits[:, :0]

    def document(self, read: Read, task: str | None, study: Compared | None) -> dict[str, Any]:
        """A text as JSON has it."""
        return {
            "model": self.name,
            "task": task,
            "text": read.text,
            "tokens": read.tokens,
            "position": read.position,
            "layers": read.layers,
            "words": read.words,
            "labels": read.labels,
            "label_probabilities": read.chances,
            "calibration": study.calibrated(read) if study is not None else None,
            "nearest": study.nearest(read) if study is not None else [],
        }

    def _prompt(self, text: str) -> tuple[list[int], int]:
        """Token ids and the position that predicts."""
        from vocabsem_core.features.architectures import kind_of
        from vocabsem_core.features.prompts import tokenize, window_of

        kind, window = kind_of(self.model.config), window_of(self.model, self._tokenizer)
        if kind == "seq2seq":
            told = "its decoder has one position; use `workflow: layers`"
            raise ConfigError(f"{self.name} is an encoder-decoder: {told}")
        if self._task is None:
            ids = self._tokenizer(text, add_special_tokens=kind == "masked")["input_ids"]
            position = len(ids) - 1
        else:
            row = {self._fields[0]: text}
            (prompt,) = tokenize(self._tokenizer, self._template, [row], _NO_LIMIT, kind == "masked")
            ids, position = prompt.ids, prompt.position
        if not ids:
            raise ConfigError("the text has no tokens; expected a word or more")
        if window is not None and len(ids) > window:
            raise ConfigError(
                f"the text has {len(ids):,} tokens, and the window of {self.name} holds {window:,}; shorten it, or "
                "name a model with a longer window by --model"
            )
        return ids, position

    @cached_property
    def _template(self) -> str:
        from vocabsem_core.features.architectures import kind_of

        assert self._task is not None
        return prompt_template(self._task.config, kind_of(self.model.config))

    @property
    def _fields(self) -> list[str]:
        """Of the template, without the mask."""
        from vocabsem_core.features.prompts import template_fields

        return [name for name in dict.fromkeys(template_fields(self._template)) if name != "mask"]

    @cached_property
    def _head(self) -> Any:
        """The head's rows that have a token."""
        from vocabsem_core.features.heads import head_of

        return head_of(self.model).rows(slice(1 + max(self._tokenizer.get_vocab().values())))

    @cached_property
    def _label_tokens(self) -> Sequence[list[int]]:
        from vocabsem_core.features.prompts import verbalize

        if self._task is None:
            return []
        words, rule = self._task.config.words, row_tokens(self._task.config)
        return verbalize(self._tokenizer, self._template, words, rule, len(self._head.weight)).tokens

    def _word(self, token: int) -> str:
        return self._tokenizer.decode([token])
