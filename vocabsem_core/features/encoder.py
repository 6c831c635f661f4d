"""Prompts to hidden states, without computing logits nobody asked for.

Layers: `layer_00` is the input of the first block, `layer_k` the output of block k before any final norm, `head` the
input of the LM head: after the final norm, where the semantic basis lives. A name that ends in `:mean` is the
layer's mean over the prompt's tokens, in place of its state where the label would be predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import blocks, decoder_start, kind_of, layer_names
from vocabsem_core.features.heads import head_of
from vocabsem_core.names import MEAN
from vocabsem_core.numerics.matmul import fast_float32

BATCH_TOKENS = 1024  # tokens a batch, padding included: stays in a processor's cache; a GPU wants more
_HELD_KEYS = 8  # times BATCH_TOKENS: keys and values held at once where a shared prefix stands before each prompt
_HELD_BYTES = 4 << 30  # of them, at most: a large model's are up to a megabyte a token
_CHECKED_PROMPTS = 2
_REPEAT = "batch_repeat_interleave"  # what a layer's keys and values can do, and a recurrent state may not
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}  # relative to max |logit|


@dataclass(frozen=True)
class Encoded:
    """Some prompts' states: their numbers, and [n, d] a layer in the same order, on the CPU."""

    rows: list[int]
    states: dict[str, Tensor]


@dataclass(frozen=True)
class Prefix:
    """A prefix that was run: its length in tokens, its keys and values, and the means of its states, [1, d] a layer."""

    length: int
    past: DynamicCache
    means: dict[str, Tensor]

    def most_copies(self, batch_tokens: int) -> int:
        """How many prompts may stand after it in one batch."""
        return most_copies(self.past, 1, self.length, batch_tokens)

    def repeated(self, count: int) -> DynamicCache:
        """Its keys and values before each of `count` prompts: a forward pass adds to them."""
        past = copy.deepcopy(self.past)
        past.batch_repeat_interleave(count)
        return past


def can_be_shared(past: Any) -> TypeGuard[DynamicCache]:
    """Whether what a model keeps of a text is keys and values, and nothing else: these can stand before several."""
    return isinstance(past, DynamicCache) and all(
        hasattr(one, _REPEAT) and not hasattr(one, "conv_states") for one in past.layers
    )


def most_copies(past: DynamicCache, rows: int, length: int, batch_tokens: int) -> int:
    """How often keys and values of one of `rows` texts of `length` tokens may be held at once."""
    parts = [getattr(layer, name, None) for layer in past.layers for name in ("keys", "values")]
    held = max(1, sum(part.nbytes for part in parts if part is not None) // rows)
    return max(1, min(_HELD_KEYS * batch_tokens // length, _HELD_BYTES // held))


class Encoder:
    """A language model that gives one state a prompt: where it would predict the label.

    Args:
        model: a transformers language model with its head, in evaluation mode.
        layers: layer names, each with `:mean` or without; `head` alone costs least.

    Raises InputError for an unknown layer, and on the first prompts where the logits rebuilt from the captured states
    differ from the model's own: then the capture is wrong for this architecture and no state can be trusted.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> encoder = Encoder(AutoModelForCausalLM.from_pretrained(folder).eval(), ["head"])
        >>> states = encoder.encode([[5, 6, 7], [8, 9]])
        >>> len(states["head"])
        2
    """

    def __init__(self, model: Any, layers: Sequence[str] = ("head",)) -> None:
        self._model = model
        self._device = input_device(model)
        self._layers = tuple(layers)
        self._kind = kind_of(model.config)
        self._checked: set[bool] = set()  # without and with a shared prefix
        for layer in layers:
            if base_of(layer) != "head" and base_of(layer) not in (names := layer_names(model)):
                there = f"{names[0]} to {names[-2]}, and head" if len(names) > 1 else "head alone"
                raise InputError(f"{type(model).__name__} has no layer {layer!r}; it has {there}")
            if layer != base_of(layer) and self._kind == "seq2seq":
                raise InputError(
                    f"layer {layer!r}: the decoder has one position, so there is no mean; take {base_of(layer)!r}"
                )

    @fast_float32()
    @torch.inference_mode()
    def encode(
        self,
        prompts: Sequence[Sequence[int]],
        batch_tokens: int = BATCH_TOKENS,
        positions: Sequence[int] | None = None,
        after_batch: Callable[[Encoded], None] = lambda _: None,
        shared: int = 0,
        known: Sequence[Encoded] = (),
    ) -> dict[str, Float[Tensor, "n d"]]:
        """States of the prompts in their order: [n, d] a layer, in the model's dtype, on the CPU.

        Args:
            positions: the token of each prompt whose state is kept; None: the last. An encoder-decoder's state is that
                of the decoder's first position, whatever is given.
            after_batch: called with the states of each.
            shared: leading tokens that all prompts have in common, to be run once; of a causal model only. Each prompt
                needs a token beyond them.
            known: what `after_batch` got before an interruption, from the first batch on; of batches made otherwise it
                is not used.

        Batches hold prompts of like length, padded on the right. A causal model needs no mask: padding cannot reach
        the tokens before it.
        """
        self._check_readable(prompts)
        places = [len(prompt) - 1 for prompt in prompts] if positions is None else list(positions)
        prefix = self.run_prefix(prompts[0][:shared]) if shared else None
        shared = prefix.length if prefix is not None else 0
        self._check_once(prompts, places, prefix)
        most = prefix.most_copies(batch_tokens) if prefix is not None else None
        planned = list(batches([len(prompt) - shared for prompt in prompts], batch_tokens, most))

        def run(batch: Sequence[int]) -> dict[str, Tensor]:
            return self.states([prompts[i][shared:] for i in batch], [places[i] - shared for i in batch], prefix)

        found = in_batches(planned, run, after_batch, known)
        return {layer: found[layer] for layer in self._layers}

    @torch.no_grad()
    def check(self, prompts: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
        """Raises InputError for prompts the model cannot read, or states that cannot be captured; see `states`."""
        self._check_readable(prompts)
        self._check_once(prompts, positions, None)

    def _check_readable(self, prompts: Sequence[Sequence[int]]) -> None:
        if not all(prompts) or not prompts:
            raise InputError("a prompt has no tokens, or there is none; give the template words of its own")
        known, largest = self._model.get_input_embeddings().weight.shape[0], max(map(max, prompts))
        if largest >= known:
            raise InputError(
                f"token id {largest} is beyond the model's {known} embeddings; its tokenizer is another model's"
            )

    def _check_once(self, prompts: Sequence[Sequence[int]], places: Sequence[int], prefix: Prefix | None) -> None:
        if (prefix is not None) not in self._checked:
            self._check(prompts[:_CHECKED_PROMPTS], places, prefix)
            self._checked.add(prefix is not None)

    def run_prefix(self, prefix: Sequence[int]) -> Prefix | None:
        """Keys and values of a prefix; None where the model keeps something else, so that nothing can be shared."""
        assert self._kind == "causal", "only a causal model's prefix does not depend on what follows"
        last, lengths = (torch.tensor([number], device=self._device) for number in (0, len(prefix)))
        with _captured(self._model, [layer for layer in self._layers if layer.endswith(MEAN)], last, lengths) as means:
            past = getattr(self._model(**self.arguments([prefix]), use_cache=True), "past_key_values", None)
        if not can_be_shared(past):
            return None
        return Prefix(len(prefix), past, means)

    def states(
        self, prompts: Sequence[Sequence[int]], places: Sequence[int], prefix: Prefix | None = None
    ) -> dict[str, Tensor]:
        """States of one batch on the model's device, or of what follows a prefix; means are over both.

        Outside of `encode` they hold what is needed to differentiate them.
        """
        kept = torch.tensor([0] * len(prompts) if self._kind == "seq2seq" else places, device=self._device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self._device)
        before: dict[str, Any] = {"use_cache": False}
        if prefix is not None:
            before = {"past_key_values": prefix.repeated(len(prompts)), "use_cache": True}
        with _captured(self._model, self._layers, kept, lengths) as states:
            self._model(**self.arguments(prompts), **before)
        if prefix is not None:
            share = (lengths / (prefix.length + lengths)).unsqueeze(1)
            for layer in prefix.means.keys() & states.keys():
                whole = torch.lerp(prefix.means[layer].float(), states[layer].float(), share)
                states[layer] = whole.to(states[layer].dtype)
        return states

    def arguments(self, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """What the model's forward pass is given for prompts."""
        ids, mask = padded(prompts, self._device)
        if self._kind == "causal":
            return {"input_ids": ids}
        if self._kind == "masked":
            return {"input_ids": ids, "attention_mask": mask}
        first = decoder_start(self._model.config, self._model.generation_config.to_dict())
        start = torch.full((len(prompts), 1), first, device=ids.device)
        return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": start}

    def _check(self, prompts: Sequence[Sequence[int]], places: Sequence[int], prefix: Prefix | None) -> None:
        """Rebuild the classic logits from captured states and compare with unhooked forwards of one prompt each."""
        layers, self._layers = self._layers, ("head",)
        shared = prefix.length if prefix is not None else 0
        own, inside = [prompt[shared:] for prompt in prompts], [place - shared for place in places[: len(prompts)]]
        head = head_of(self._model)
        rebuilt = head.logits(self.states(own, inside, prefix)["head"].to(head.weight.device)).double()
        self._layers = layers
        at = [0 if self._kind == "seq2seq" else place for place in places]
        plain = [  # of each prompt one position alone is kept
            self._model(**self.arguments([prompt])).logits[0, place].clone()
            for prompt, place in zip(prompts, at, strict=False)
        ]
        expected = torch.stack(plain).double().to(rebuilt.device)
        gap = float((rebuilt - expected).abs().max() / expected.abs().max())
        if not gap <= TOLERANCE[self._model.dtype]:  # also catches NaN
            raise InputError(
                f"{type(self._model).__name__}: logits rebuilt from the captured states differ from the model's own by "
                f"{gap:.1e} of the largest logit; this architecture's output head is not one that can be captured"
            )


def in_batches(
    planned: Sequence[list[int]],
    run: Callable[[Sequence[int]], dict[str, Tensor]],
    after_batch: Callable[[Encoded], None],
    known: Sequence[Encoded],
) -> dict[str, Tensor]:
    """What `run` gives of each batch of prompt numbers, in the order of the numbers; see `Encoder.encode`."""
    found = list(known) if _begins(known, planned) else []
    done = sum(len(one.rows) for one in found)
    for batch, end in zip(planned, accumulate(map(len, planned)), strict=True):
        if end <= done:
            continue
        found.append(Encoded(batch, {name: made.cpu() for name, made in run(batch).items()}))
        after_batch(found[-1])
    back = torch.tensor([row for one in found for row in one.rows]).argsort()
    return {name: torch.cat([one.states[name] for one in found])[back] for name in found[0].states}


def _begins(known: Sequence[Encoded], planned: Sequence[Sequence[int]]) -> bool:
    """Whether what is known is whole batches of those planned, from the first on."""
    rows, order = [row for one in known for row in one.rows], [row for batch in planned for row in batch]
    return rows == order[: len(rows)] and len(rows) in (0, *accumulate(map(len, planned)))


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all prompts share, one token of each left out: there must be something to encode."""
    first, last = min(prompts, key=tuple), max(prompts, key=tuple)  # the two that differ earliest
    most = min(len(prompt) for prompt in prompts) - 1
    return next((i for i in range(most) if first[i] != last[i]), max(0, most))


def batches(lengths: Sequence[int], batch_tokens: int, most: int | None = None) -> Iterator[list[int]]:
    """Prompt numbers, longest first, in batches of at most `batch_tokens` tokens with padding, one prompt at least.

    `most` bounds the prompts of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, min(batch_tokens // max(1, lengths[order[0]]), most or len(order)))
        yield order[:size]
        order = order[size:]


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Int[Tensor, "n t"], Int[Tensor, "n t"]]:
    """Right-padded ids, and the mask of real tokens. The padding id is of no consequence."""
    ids = torch.zeros(len(prompts), max(len(prompt) for prompt in prompts), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = 1
    return ids.to(device), mask.to(device)


def input_device(model: Any) -> torch.device:
    """Where a model takes its input: of one whose layers lie on several devices, where the embedding runs."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    place = getattr(hook, "execution_device", None)
    return torch.device(model.device if place is None else place)


def base_of(layer: str) -> str:
    """The layer a name is about, without `:mean`."""
    return layer.removesuffix(MEAN)


@contextmanager
def _captured(
    model: Any, layers: Sequence[str], last: Int[Tensor, " n"], lengths: Int[Tensor, " n"]
) -> Iterator[dict[str, Tensor]]:
    """Within it, a forward pass leaves states at `last`, or means, in the dictionary, and computes no logits."""
    states: dict[str, Tensor] = {}
    rows = torch.arange(len(last), device=last.device)

    def keep(layer: str, hidden: Tensor) -> None:  # which may be on another device than the input
        if layer in layers:
            kept = hidden[rows.to(hidden.device), last.to(hidden.device)]  # a copy: the batch's memory is not held
            states[layer] = kept.to(last.device)
        if f"{layer}{MEAN}" in layers:
            states[f"{layer}{MEAN}"] = _means(hidden, lengths.to(hidden.device)).to(last.device)

    with listening_at(model, map(base_of, layers), keep):
        yield states


@contextmanager
def listening_at(model: Any, layers: Iterable[str], keep: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within it, a forward pass gives `keep` each layer's states [n, t, d] by its name, and computes no logits."""

    def at_head(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        keep("head", args[0])
        return (args[0][:, :0], *args[1:])  # no position left: the product over the vocabulary costs nothing

    def at_first_block(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep("layer_00", args[0] if args else kwargs["hidden_states"])

    handles = [model.get_output_embeddings().register_forward_pre_hook(at_head)]
    for layer in dict.fromkeys(layers):
        if layer == "layer_00":
            handles.append(blocks(model)[0].register_forward_pre_hook(at_first_block, with_kwargs=True))
        elif layer != "head":

            def after_block(_: Any, args: Any, output: Any, layer: str = layer) -> None:
                keep(layer, output[0] if isinstance(output, tuple) else output)

            handles.append(blocks(model)[int(layer.removeprefix("layer_")) - 1].register_forward_hook(after_block))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _means(hidden: Float[Tensor, "n t d"], lengths: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """Means over each prompt's own tokens, without the padding; summed in float32 at least."""
    real = torch.arange(hidden.shape[1], device=hidden.device) < lengths.unsqueeze(1)
    summed = torch.where(real.unsqueeze(-1), hidden, 0).sum(
        dim=1, dtype=torch.promote_types(hidden.dtype, torch.float32)
    )
    return (summed / lengths.unsqueeze(1)).to(hidden.dtype)
