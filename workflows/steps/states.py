"""States as they are stored."""

from __future__ import annotations

from typing import Any

from workflows.errors import ConfigError

BYTES = {"float16": 2, "float32": 4}  # of a number


def stored_states(layer: str, states: Any, dtype: str) -> Any:
    """States as an array of the stored precision. Raises ConfigError, naming the layer, for what it cannot hold."""
    import torch

    if not torch.isfinite(states).all():
        raise ConfigError(
            f"layer {layer}: the model gave states that are not finite; try dtype: float32 in a model file"
        )
    stored = states.to(getattr(torch, dtype))
    if not torch.isfinite(stored).all():
        largest = float(states.abs().max())
        raise ConfigError(
            f"layer {layer}: states up to {largest:.3g} do not fit {dtype}; set encoding.store_dtype: float32"
        )
    return stored.numpy()
