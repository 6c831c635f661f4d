"""The states of one prompt at every layer and position, and the way of a state from the last block to the LM head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import blocks, layer_names
from vocabsem_core.features.encoder import TOLERANCE, Encoder, listening_at


def last_layer(model: Any) -> str:
    """The name of the last block's output. Raises InputError where the blocks are not listed."""
    return f"layer_{len(blocks(model)):02d}"


@torch.inference_mode()
def trace(model: Any, prompt: Sequence[int]) -> dict[str, Float[Tensor, "t d"]]:
    """States of one prompt by layer: `layer_00`, ..., `head`, each [positions, width], in the model's dtype.

    An encoder-decoder's are those of the decoder, which has one position.

    Args:
        model: a transformers language model with its head, in evaluation mode.
        prompt: token ids.

    Raises InputError where the model's blocks are not listed.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> states = trace(AutoModelForCausalLM.from_pretrained(folder).eval(), [5, 6, 7])
        >>> list(states)[0], list(states)[-1], len(states["head"])
        ('layer_00', 'head', 3)
    """
    blocks(model)
    states: dict[str, Tensor] = {}

    def keep(layer: str, hidden: Tensor) -> None:
        states[layer] = hidden[0].clone()

    names = layer_names(model)
    with listening_at(model, names, keep):
        model(**Encoder(model).arguments([prompt]), use_cache=False)
    return {name: states[name] for name in names}


class Tail:
    """The map from the last block's output to the input of the LM head: final norm, scaling, transform.

    No name of a module is needed: the model reads one token, and the given states take the place of what its last block
    returns. What lies behind the blocks acts on each position alone.

    Args:
        model: a transformers language model with its head, in evaluation mode.

    Raises InputError where the blocks are not listed, and where the tail of the last block's output is not what the
    head is given: then something else lies between the two, and no layer can be read.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._last = model, blocks(model)[-1]
        self._arguments = Encoder(model).arguments([[0]])
        self._check()

    @torch.inference_mode()
    def __call__(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """States of the space of blocks' outputs, in the space of the LM head."""
        if len(states) == 0:
            raise InputError("no states were given; expected one or more")
        seen: list[Tensor] = []
        given = states.to(self._model.device, self._model.dtype).unsqueeze(1)  # n rows of one token

        def instead(_: Any, args: Any, output: Any) -> Any:
            return (given, *output[1:]) if isinstance(output, tuple) else given

        handle = self._last.register_forward_hook(instead)
        try:
            with listening_at(self._model, ["head"], lambda _, hidden: seen.append(hidden[:, 0])):
                self._model(**self._arguments, use_cache=False)
        finally:
            handle.remove()
        return seen[0].to(states.device, states.dtype)

    def _check(self) -> None:
        seen: dict[str, Tensor] = {}
        last = last_layer(self._model)
        with torch.inference_mode(), listening_at(self._model, [last, "head"], seen.__setitem__):
            self._model(**self._arguments, use_cache=False)
        head = seen["head"][0]
        found = self(seen[last][0])
        fits = found.shape == head.shape
        gap = float((found - head).abs().max() / head.abs().max()) if fits else float("inf")
        if not gap <= TOLERANCE[self._model.dtype]:  # also catches NaN
            raise InputError(
                f"{type(self._model).__name__}: what lies between the last block ({last}) and the LM head was not "
                f"found (it differs by {gap:.1e}), so layers cannot be compared with the vocabulary; read `head` alone"
            )
