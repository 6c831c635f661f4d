"""Class scores that are linear in states, apart from what fits them: who only predicts loads no scikit-learn."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def probe_logits(states: Float[Tensor, "n d"], weights: dict[str, Tensor]) -> Float[Tensor, "n c"]:
    """Class scores of states, by the weight [c, d] and the bias [c]."""
    return states @ weights["weight"].T + weights["bias"]
