"""Log-likelihoods of whole label words after a prompt: log P(word | prompt), the sum over the word's tokens.

A prompt is run once, and the words' tokens on its keys and values. What lm-evaluation-harness calls `acc` of a
multiple-choice item is the share of items whose right choice has the largest.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from vocabsem_core.errors import InputError
from vocabsem_core.features.encoder import (
    BATCH_TOKENS,
    TOLERANCE,
    Encoded,
    Encoder,
    Prefix,
    batches,
    can_be_shared,
    in_batches,
    most_copies,
    padded,
)
from vocabsem_core.names import WHOLE
from vocabsem_core.numerics.matmul import fast_float32

Words = Sequence[Sequence[int]]  # the tokens of each label's word
_HELD_LOGITS = 1 << 26  # at once: 256 MB in float32
_CHECKED_WORDS = 2  # the longest


class WordScorer(Encoder):
    """A causal language model that says how likely each label's word is after a prompt.

    Args:
        model: a transformers language model with its head, in evaluation mode.

    Raises InputError for a model that is not causal, and on the first prompt where what comes by way of keys and values
    differs from a pass over prompt and word together.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> scorer = WordScorer(AutoModelForCausalLM.from_pretrained(folder).eval())
        >>> scores = scorer.score([[5, 6, 7], [8, 9]], [[[3], [4, 2]], [[3], [4, 2]]])
        >>> tuple(scores.shape)
        (2, 2)
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model, ())
        if self._kind != "causal":
            raise InputError(
                f"{type(model).__name__} is a {self._kind} model; whole words are scored by a causal one, which "
                "reads from left to right"
            )

    @fast_float32()
    @torch.inference_mode()
    def score(
        self,
        prompts: Sequence[Sequence[int]],
        words: Sequence[Words],
        batch_tokens: int = BATCH_TOKENS,
        after_batch: Callable[[Encoded], None] = lambda _: None,
        shared: int = 0,
        known: Sequence[Encoded] = (),
    ) -> Float[Tensor, "n c"]:
        """Log-likelihoods of each prompt's words, float32, on the CPU.

        Args:
            words: for each prompt the tokens of c words, one token at least.

        The others are those of `encode`. Prompts share a batch where they are equally long, so that there is no padding
        among the keys that words are run on; where all words are one token, of like length.
        """
        self._check_readable([*prompts, *(word for of_prompt in words for word in of_prompt)])
        prefix = self.run_prefix(prompts[0][:shared]) if shared else None
        shared = prefix.length if prefix is not None else 0
        most = max(1, _HELD_LOGITS // self._model.get_output_embeddings().weight.shape[0])
        copies = prefix.most_copies(batch_tokens) if prefix is not None else most
        own = [prompt[shared:] for prompt in prompts]
        planned = list(_planned([len(prompt) for prompt in own], words, batch_tokens, min(most, copies)))

        def run(batch: Sequence[int]) -> dict[str, Tensor]:
            return {WHOLE: self._scores([own[i] for i in batch], [words[i] for i in batch], prefix, batch_tokens, most)}

        if (prefix is not None) not in self._checked:
            self._check_words(prompts[0], words[0], run([0])[WHOLE][0])
            self._checked.add(prefix is not None)
        return in_batches(planned, run, after_batch, known)[WHOLE]

    def _scores(
        self,
        prompts: Sequence[Sequence[int]],
        words: Sequence[Words],
        prefix: Prefix | None,
        batch_tokens: int,
        most: int,
    ) -> Float[Tensor, "n c"]:
        """Of one batch of prompts, or of what follows a prefix."""
        several = [(i, k) for i, own in enumerate(words) for k, word in enumerate(own) if len(word) > 1]
        before = prefix.repeated(len(prompts)) if prefix is not None else None
        last = torch.tensor([[len(prompt) - 1] for prompt in prompts], device=self._device)
        firsts = torch.tensor([[[word[0] for word in own]] for own in words], device=last.device)
        output = self._run(prompts, before, last, keep=bool(several))
        scores = _log_probabilities(output.logits, firsts).squeeze(1)
        if not several:
            return scores
        kept = getattr(output, "past_key_values", None)
        past = kept if can_be_shared(kept) else None  # then there is no prefix either
        size = max(1, min(most, batch_tokens) // max(len(words[i][k]) for i, k in several))
        if past is not None:
            length = (prefix.length if prefix is not None else 0) + len(prompts[0])
            size = min(size, most_copies(past, len(prompts), length, batch_tokens))
        for part in (several[start : start + size] for start in range(0, len(several), size)):
            rows, labels = torch.tensor(part, device=last.device).T
            on = None if past is None else _selected(past, rows)
            own = [prompts[i] if past is None else [] for i, _ in part]
            scores[rows, labels] += self._after(on, own, [words[i][k] for i, k in part])
        return scores

    def _after(self, past: DynamicCache | None, prompts: Sequence[Sequence[int]], words: Words) -> Float[Tensor, " p"]:
        """Log-likelihoods of the words' later tokens, each word on its row of `past`, or after its prompt."""
        read = [[*prompt, *word[:-1]] for prompt, word in zip(prompts, words, strict=True)]
        longest, device = max(map(len, words)) - 1, self._device
        begins = torch.tensor([len(prompt) for prompt in prompts], device=device).unsqueeze(1)
        steps = torch.arange(longest, device=device)
        ends = torch.tensor([len(word) - 1 for word in words], device=device).unsqueeze(1)
        places = begins + torch.minimum(steps, ends - 1)
        wanted, _ = padded([word[1:] for word in words], device)
        logits = self._run(read, past, places, keep=False).logits
        told = _log_probabilities(logits, wanted.unsqueeze(-1)).squeeze(-1)
        return torch.where(steps < ends, told, 0).sum(dim=1)

    def _run(
        self, read: Sequence[Sequence[int]], past: DynamicCache | None, places: Int[Tensor, "n k"], keep: bool
    ) -> Any:
        """The model's output after `past`, with logits at these places of each text alone: [n, k, v]."""
        before: dict[str, Any] = {"use_cache": keep or past is not None}
        if past is not None:
            before["past_key_values"] = past
        with _logits_at(self._model, places):
            return self._model(**self.arguments(read), **before)

    def _check_words(self, prompt: Sequence[int], words: Words, found: Float[Tensor, " c"]) -> None:
        """Compare with passes over prompt and word together."""
        longest = sorted(range(len(words)), key=lambda k: len(words[k]))[-_CHECKED_WORDS:]
        expected = []
        for word in (words[k] for k in longest):
            logits = self._model(**self.arguments([[*prompt, *word[:-1]]]), use_cache=False).logits
            told = _log_probabilities(
                logits[:, len(prompt) - 1 :], torch.tensor(word, device=self._device)[None, :, None]
            )
            expected.append(told.sum())
        plain = torch.stack(expected)
        gap = float((found[longest] - plain).abs().max() / plain.abs().max())
        if not gap <= TOLERANCE[self._model.dtype]:  # also catches NaN
            raise InputError(
                f"{type(self._model).__name__}: log-likelihoods of words on the prompt's keys and values differ from "
                f"those of prompt and word together by {gap:.1e} of the largest; whole words cannot be scored with it"
            )


def _planned(lengths: Sequence[int], words: Sequence[Words], batch_tokens: int, most: int) -> Iterator[list[int]]:
    """Prompt numbers in batches; see `WordScorer.score`."""
    groups: dict[int, list[int]] = defaultdict(list)
    for number, (length, own) in enumerate(zip(lengths, words, strict=True)):
        groups[length if any(len(word) > 1 for word in own) else 0].append(number)
    for _, numbers in sorted(groups.items(), reverse=True):
        for batch in batches([lengths[i] for i in numbers], batch_tokens, most):
            yield [numbers[place] for place in batch]


def _selected(past: DynamicCache, rows: Int[Tensor, " p"]) -> DynamicCache:
    """Keys and values of these rows, one for each time it is named; the given ones stay as they are."""
    chosen = copy.copy(past)
    chosen.layers = [copy.copy(layer) for layer in past.layers]  # selecting and appending make new tensors
    chosen.batch_select_indices(rows.cpu())  # layers may be on several devices
    return chosen


def _log_probabilities(logits: Float[Tensor, "n k v"], tokens: Int[Tensor, "m k c"]) -> Float[Tensor, "n k c"]:
    """Of c tokens at each place, float32 at least, on the tokens' device: the logits may be on another."""
    logits, place = logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens.device
    wanted = tokens.to(logits.device).expand(len(logits), -1, -1)
    return (logits.gather(2, wanted) - logits.logsumexp(dim=2, keepdim=True)).to(place)


@contextmanager
def _logits_at(model: Any, places: Int[Tensor, "n k"]) -> Iterator[None]:
    """Within it, a forward pass computes logits at these places of each text alone."""
    rows = torch.arange(len(places)).unsqueeze(1)

    def at_head(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][rows.to(args[0].device), places.to(args[0].device)], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(at_head)
    try:
        yield
    finally:
        handle.remove()
