"""Names of layers in a workflow file: which are stored of a model, and which of them a method reads.

A name is `head`, `layer_00` (the input of block 1), `layer_01`, ..., or `all` for every one; with `:mean` at its end it
is the layer's mean over the prompt's tokens in place of its state where the label would be predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from vocabsem_core.names import MEAN, WHOLE

ALL = "all"
Reads = str | tuple[str, ...]


def stored_layers(asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """What `encoding.layers` stands for under a model whose layers are `known`; of `all` the head comes first."""
    everything = sorted(known, key=lambda name: name != "head")
    names = [f"{one}{_suffix(name)}" for name in asked for one in (everything if _base(name) == ALL else [_base(name)])]
    return list(dict.fromkeys(names))


def layer_problems(model: str, asked: Sequence[str], known: Sequence[str]) -> list[str]:
    """A line for each of `encoding.layers` that a model does not have."""
    told = f"{known[0]} to {known[-2]}, and head" if len(known) > 1 else "only head"
    unknown = [name for name in asked if _base(name) not in (ALL, *known)]
    return [f"encoding.layers: {model} has no layer {name!r}; it has {told}" for name in unknown]


def layers_read(reads: Reads, stored: Sequence[str]) -> str | list[str]:
    """The stored layers that a method reads, the first being the one that calibration moves: of `all` the head.

    Where log-likelihoods of whole words are stored, there is nothing else.
    """
    if list(stored) == [WHOLE]:
        return WHOLE
    if reads == ALL:
        return sorted(stored, key=lambda name: name != "head")
    return reads if isinstance(reads, str) else list(reads)


def check_stored(reads: Reads, asked: Sequence[str]) -> None:
    """Raises ValueError where a method reads a layer that `encoding.layers` does not store."""
    for name in (reads,) if isinstance(reads, str) else reads:
        if name not in (ALL, *asked) and f"{ALL}{_suffix(name)}" not in asked:
            raise ValueError(f"layer {name!r} is not stored; add it to encoding.layers {list(asked)}")


def _base(name: str) -> str:
    return name.removesuffix(MEAN)


def _suffix(name: str) -> str:
    return MEAN if name.endswith(MEAN) else ""
