"""Contextual calibration (Zhao et al. 2021): a model's lean to a label, measured on content-free prompts."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def log_prior(content_free: Float[Tensor, "m c"]) -> Float[Tensor, " c"]:
    """The logarithm of the mean label probabilities of content-free prompts, from their label logits.

    Label probabilities divided by these are the calibrated ones. A probability too small for its dtype is not 0.
    """
    return content_free.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(content_free))
