"""Prompts to hidden states, without computing logits nobody asked for.

Layers: `layer_00` is the input of the first block, `layer_k` the output of block k before any final norm, `head` the
input of the output matrix: after the final norm, where the semantic basis lives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.heads import head_of

BATCH_TOKENS = 2048  # tokens a batch, padding included: stays in a processor's cache, fills a GPU for short prompts
_CHECKED_PROMPTS = 2
_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}  # relative to max |logit|


class Encoder:
    """A causal language model that gives the states of each prompt's last token.

    Args:
        model: a transformers causal language model in evaluation mode.
        layers: layer names; `head` alone costs least.

    Raises InputError for an unknown layer, and on the first prompts where the logits rebuilt from the captured states
    differ from the model's own: then the capture is wrong for this architecture and no state can be trusted.
    """

    def __init__(self, model: Any, layers: Sequence[str] = ("head",)) -> None:
        self._model = model
        self._layers = tuple(layers)
        self._checked = False
        for layer in layers:
            if layer != "head" and layer not in (names := layer_names(model)):
                raise InputError(
                    f"{type(model).__name__} has no layer {layer!r}; it has {names[0]} to {names[-2]}, and head"
                )

    @torch.inference_mode()
    def encode(
        self, prompts: Sequence[Sequence[int]], batch_tokens: int = BATCH_TOKENS
    ) -> dict[str, Float[Tensor, "n d"]]:
        """States of the prompts' last tokens in prompt order: [n, d] a layer, in the model's dtype, on the CPU.

        Batches hold prompts of like length, padded on the right and without a mask: in a causal model, padding cannot
        reach the last real token.
        """
        if not all(prompts) or not prompts:
            raise InputError("a prompt has no tokens, or there is none; give the template words of its own")
        if not self._checked:
            self._check(prompts[:_CHECKED_PROMPTS])
            self._checked = True
        found: dict[str, list[Tensor]] = {layer: [] for layer in self._layers}
        order: list[int] = []
        for batch in batches([len(prompt) for prompt in prompts], batch_tokens):
            for layer, states in self._states([prompts[i] for i in batch]).items():
                found[layer].append(states.cpu())
            order.extend(batch)
        back = torch.tensor(order).argsort()
        return {layer: torch.cat(states)[back] for layer, states in found.items()}

    def _states(self, prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        ids, last = padded(prompts, self._model.device)
        with _captured(self._model, self._layers, last) as states:
            self._model(input_ids=ids, use_cache=False)
        return states

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        """Rebuild the classic logits from captured states and compare with an unhooked forward."""
        ids, last = padded(prompts, self._model.device)
        with _captured(self._model, ("head",), last) as states:
            self._model(input_ids=ids, use_cache=False)
        rebuilt = head_of(self._model).logits(states["head"]).double()
        plain = [
            self._model(input_ids=torch.tensor([list(p)], device=self._model.device)).logits[0, -1] for p in prompts
        ]
        expected = torch.stack(plain).double()
        gap = float((rebuilt - expected).abs().max() / expected.abs().max())
        if not gap <= _TOLERANCE[self._model.dtype]:  # also catches NaN
            raise InputError(
                f"{type(self._model).__name__}: logits rebuilt from the captured states differ from the model's own by "
                f"{gap:.1e} of the largest logit; this architecture's output head is not one that can be captured"
            )


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Prompt numbers, longest first, in batches of at most `batch_tokens` tokens with padding, one prompt at least."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, batch_tokens // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Int[Tensor, "n t"], Int[Tensor, " n"]]:
    """Right-padded ids and the place of each prompt's last token. The padding id is of no consequence."""
    lengths = [len(prompt) for prompt in prompts]
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    return ids.to(device), torch.tensor(lengths, device=device) - 1


def layer_names(model: Any) -> list[str]:
    """All layer names of a model, first to last: layer_00, ..., head."""
    return [f"layer_{k:02d}" for k in range(len(_blocks(model)) + 1)] + ["head"]


def _blocks(model: Any) -> torch.nn.ModuleList:
    """The list of transformer blocks: the first module list as long as the configuration says the model is deep."""
    depth = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return module
    raise InputError(f"{type(model).__name__}: found no list of {depth} blocks; use layers: [head]")


@contextmanager
def _captured(model: Any, layers: Sequence[str], last: Int[Tensor, " n"]) -> Iterator[dict[str, Tensor]]:
    """Within it, a forward pass leaves the states at `last` in the dictionary, and computes no logits."""
    states: dict[str, Tensor] = {}
    rows = torch.arange(len(last), device=last.device)

    def keep(layer: str, hidden: Tensor) -> None:
        states[layer] = hidden[rows, last]  # indexing copies, so the batch's memory is not held

    def at_head(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        keep("head", args[0])
        return (args[0][:, :0], *args[1:])  # no position left: the product over the vocabulary costs nothing

    def at_first_block(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keep("layer_00", args[0] if args else kwargs["hidden_states"])

    handles = [model.get_output_embeddings().register_forward_pre_hook(at_head)]
    for layer in layers:
        if layer == "layer_00":
            handles.append(_blocks(model)[0].register_forward_pre_hook(at_first_block, with_kwargs=True))
        elif layer != "head":

            def after_block(_: Any, args: Any, output: Any, layer: str = layer) -> None:
                keep(layer, output[0] if isinstance(output, tuple) else output)

            handles.append(_blocks(model)[int(layer.removeprefix("layer_")) - 1].register_forward_hook(after_block))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
    if "head" not in layers:
        states.pop("head", None)
