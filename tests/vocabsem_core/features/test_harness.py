"""Whole words' log-likelihoods against lm-evaluation-harness itself, item by item (`pip install lm-eval`)."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from tests import tiny
from vocabsem_core.features.likelihoods import WordScorer
from vocabsem_core.features.words import tokenize_words

pytest.importorskip("lm_eval", reason="lm-eval is not installed: `pip install lm-eval`")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the harness

WORDS = ["positive", "not equivalent", "film world", "world film"]
ROWS = [
    {"text": text} for text in ("a fine film", "a dull film, cold and long", "", "warm and funny " * 4, "it rained")
]


def harness(model: Any, tokenizer: Any, contexts: list[str], words: list[str], **settings: Any) -> torch.Tensor:
    """[contexts, words]."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    judge = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=4, **settings)
    asked = [
        Instance("loglikelihood", {}, (context, f" {word}"), number)
        for number, (context, word) in enumerate(product(contexts, words))
    ]
    found = [one for one, _ in judge.loglikelihood(asked, disable_tqdm=True)]
    return torch.tensor(found).reshape(len(contexts), len(words))


@pytest.mark.parametrize("bos", [False, True], ids=["no bos", "bos"])
@pytest.mark.parametrize("template", ["review: {text}\n sentiment:", "review: {text}\n sentiment: "])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma2", "opt"])
def test_every_item_has_the_harnesss_scores(name: str, template: str, bos: bool) -> None:
    model, tokenizer = tiny.ALL[name](), tiny.tokenizer(bos=bos)
    prompts = tokenize_words(tokenizer, template, ROWS, WORDS, 128)
    found = WordScorer(model).score([one.ids for one in prompts], [one.words for one in prompts], 64)
    expected = harness(model, tokenizer, [template.format(**row) for row in ROWS], WORDS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.argmax(dim=1).tolist() == expected.argmax(dim=1).tolist()
