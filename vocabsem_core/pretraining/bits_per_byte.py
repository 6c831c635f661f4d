"""Bits per byte: how well a causal model predicts text, whatever its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from vocabsem_core.errors import InputError
from vocabsem_core.features.encoder import batches, padded
from vocabsem_core.numerics.ticks import tick

_BATCH_TOKENS = 2048
_RESAMPLES = 1000


@torch.inference_mode()
def text_bits(model: Any, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """Bits of each text, [n], float64: the sum over its tokens of -log2 p(token | those before it).

    The first token follows the tokenizer's start token. A text longer than the window goes on in further windows, which
    do not overlap and each begin with the start token (our choice: cheap, and the same for every model of a window).
    Raises InputError where there is no text, or no start token.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise InputError("the tokenizer has no start token; bits per byte need one before the first token")
    if not texts or not all(texts):
        raise InputError("no text to measure bits per byte on, or an empty one")
    size = model.config.max_position_embeddings - 1
    encoded = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
    windows = [
        (row, [start, *ids[at : at + size]]) for row, ids in enumerate(encoded) for at in range(0, len(ids), size)
    ]
    nats, done = np.zeros(len(texts)), 0
    for batch in batches([len(window) for _, window in windows], _BATCH_TOKENS):
        ids, mask = padded([windows[i][1] for i in batch], model.device)
        logits = model(input_ids=ids[:, :-1]).logits.float()  # causal: padding on the right reaches no token
        losses = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        np.add.at(nats, [windows[i][0] for i in batch], (losses * mask[:, 1:]).double().sum(dim=1).cpu().numpy())
        done += len(batch)
        tick(done, len(windows), "windows of text")
    return nats / math.log(2)


def per_byte(bits: np.ndarray, sizes: np.ndarray) -> tuple[float, float, float]:
    """Bits per byte of all texts together, and the 95 % bootstrap interval over texts (percentiles; our choice)."""
    generator = np.random.default_rng(0)
    draws = (generator.integers(len(bits), size=len(bits)) for _ in range(_RESAMPLES))  # all at once might be gigabytes
    low, high = np.percentile([bits[drawn].sum() / sizes[drawn].sum() for drawn in draws], [2.5, 97.5])
    return float(bits.sum() / sizes.sum()), float(low), float(high)
