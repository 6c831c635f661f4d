"""Contextual calibration against the paper's formula: q = softmax(diag(p_cf)⁻¹ p), in numpy."""

import numpy as np
import torch
from scipy.special import softmax

from vocabsem_core.baselines.contextual_calibration import log_prior


def test_probabilities_are_divided_by_those_of_prompts_that_say_nothing():
    draw = torch.Generator().manual_seed(0)
    content_free, logits = torch.randn(3, 5, generator=draw).double(), torch.randn(7, 5, generator=draw).double()
    found = (logits.log_softmax(dim=1) - log_prior(content_free)).softmax(dim=1)
    lean = softmax(content_free.numpy(), axis=1).mean(axis=0)
    divided = softmax(logits.numpy(), axis=1) / lean
    np.testing.assert_allclose(found.numpy(), divided / divided.sum(axis=1, keepdims=True), rtol=1e-12)


def test_a_prompt_that_says_nothing_itself_gets_even_chances():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    assert torch.allclose((logits.log_softmax(dim=1) - log_prior(logits)).exp(), torch.ones(1, 3))


def test_a_probability_too_small_for_its_dtype_is_not_zero():
    """Log-likelihoods of whole words differ by more than a hundred."""
    found = log_prior(torch.tensor([[-1.0, -120.0], [-1.0, -110.0]]))
    expected = np.log(np.exp(np.array([-119.0, -109.0])).mean())
    torch.testing.assert_close(found, torch.tensor([0.0, expected], dtype=torch.float32))
