"""kNN-Prompting (Xu et al. 2023): neighbours by the distribution of the next token over the whole vocabulary."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vocabsem_core.features.heads import OutputHead
from vocabsem_core.numerics.matmul import fast_float32

_CHUNK = 256  # states whose distributions are formed at once: memory is that many times the vocabulary


@fast_float32()
def divergences(queries: Float[Tensor, "n d"], anchors: Float[Tensor, "m d"], head: OutputHead) -> Float[Tensor, "n m"]:
    """KL(p_anchor ‖ p_query) in nats, from states; the distributions are never kept.

    KL = Σ p_a log p_a - E_a[logits_q] + log Z_q. Where logits are linear in the state, E_a[logits_q] is a product of
    the query with E_a[W], so an anchor costs d numbers; soft-capped logits are not linear and are formed in chunks.
    """
    normalizers = torch.cat([head.logits(part).logsumexp(dim=1) for part in queries.split(_CHUNK)])
    columns = []
    for part in anchors.split(_CHUNK):
        logs = functional.log_softmax(head.logits(part), dim=1)
        probabilities = logs.exp()
        negative_entropy = (probabilities * logs).sum(dim=1)
        columns.append(negative_entropy - _expected(queries, probabilities, head))
    return torch.cat(columns, dim=1) + normalizers.unsqueeze(1)


def _expected(queries: Tensor, probabilities: Float[Tensor, "m v"], head: OutputHead) -> Float[Tensor, "n m"]:
    """The mean of each query's logits under each anchor's distribution."""
    if head.softcap is not None:
        return torch.cat([head.logits(part) @ probabilities.T for part in queries.split(_CHUNK)])
    expected = queries @ (probabilities @ head.weight.to(probabilities.dtype)).T
    if head.bias is not None:
        expected = expected + probabilities @ head.bias.to(probabilities.dtype)
    return expected * head.scale
