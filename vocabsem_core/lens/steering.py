"""States that are moved on their way through the model: is the basis causal, or only descriptive? (ours)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import blocks, kind_of
from vocabsem_core.features.encoder import Encoder


@dataclass(frozen=True)
class Push:
    """What is added to the state of a block's output, and where.

    Attributes:
        layer: `layer_01` or deeper: the output of block 1, 2, ...
        move: [d].
    """

    layer: str
    move: Float[Tensor, " d"]


@torch.inference_mode()
def steered(
    model: Any, encoder: Encoder, prompt: Sequence[int], place: int, pushes: Sequence[Push]
) -> Float[Tensor, "m e"]:
    """The input of the LM head at a position of the prompt, once for each push, in the model's dtype.

    What a causal model computed of the tokens before the position is computed once and used by all.

    Args:
        model: a language model, in evaluation mode.
        encoder: of this model, reading `head`.
        prompt: token ids.
        place: the position whose state is moved and read; of a causal model the last one.
        pushes: one each for a row of the result.

    Raises InputError for a layer that is no block's output.
    """
    prefix = encoder.run_prefix(prompt[:-1]) if kind_of(model.config) == "causal" and len(prompt) > 1 else None
    start = prefix.length if prefix is not None else 0
    found = []
    size = prefix.most_copies(len(pushes)) if prefix is not None else 8
    for first in range(0, len(pushes), size):
        part = pushes[first : first + size]
        with _pushed(model, part, place - start):
            found.append(encoder.states([prompt[start:]] * len(part), [place - start] * len(part), prefix)["head"])
    return torch.cat(found)


@contextmanager
def _pushed(model: Any, pushes: Sequence[Push], place: int) -> Iterator[None]:
    """Within it, each row of a batch is moved by its push."""
    listed = blocks(model)
    place = 0 if kind_of(model.config) == "seq2seq" else place
    handles = []
    for layer in dict.fromkeys(push.layer for push in pushes):
        number = int(layer.removeprefix("layer_")) if layer.startswith("layer_") else 0
        if not 1 <= number <= len(listed):
            raise InputError(f"layer {layer!r} is no block's output; expected layer_01 to layer_{len(listed):02d}")
        rows = [row for row, push in enumerate(pushes) if push.layer == layer]
        moves = torch.stack([pushes[row].move for row in rows])

        def move(_: Any, args: Any, output: Any, rows: Sequence[int] = tuple(rows), moves: Tensor = moves) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[list(rows), place] += moves.to(hidden.device, hidden.dtype)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handles.append(listed[number - 1].register_forward_hook(move))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def random_like(move: Float[Tensor, " d"], generator: torch.Generator) -> Float[Tensor, " d"]:
    """A random direction, as long as a move."""
    drawn = torch.randn(move.shape, generator=generator, dtype=move.dtype)
    return drawn / drawn.norm() * move.norm()
