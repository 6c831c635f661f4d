"""Logits of every layer against the logit lens of nnsight, on the bundled model (`pip install nnsight`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vocabsem_core.features.checkpoints import load_model, load_tokenizer
from vocabsem_core.features.heads import head_of
from vocabsem_core.lens.trace import Tail, last_layer, trace

pytest.importorskip("nnsight", reason="nnsight is not installed: `pip install nnsight`")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the tool

FOLDER = Path(__file__).parents[3] / "workflows" / "catalog" / "models" / "reference"
TEXT = "The price of oil fell sharply after the meeting."


def test_every_layers_logits_are_those_of_nnsights_logit_lens() -> None:
    from nnsight import LanguageModel

    model, tokenizer = load_model(FOLDER, "float32", "cpu"), load_tokenizer(FOLDER)
    ids = tokenizer(TEXT)["input_ids"]
    states, tail, head = trace(model, ids), Tail(model), head_of(model)
    found = [head.logits(tail(states[f"layer_{k + 1:02d}"])) for k in range(len(model.transformer.h))]
    assert last_layer(model) == f"layer_{len(found):02d}"
    lens = LanguageModel(model, tokenizer=tokenizer)
    with lens.trace(torch.tensor([ids])):
        outputs = list().save()  # noqa: C408 - the tool's own way
        for block in lens.transformer.h:
            outputs.append(block.output)
        logits = lens.lm_head.output.save()
    outputs = [output[0] if isinstance(output, tuple) else output for output in outputs]
    with torch.no_grad():
        expected = [model.lm_head(model.transformer.ln_f(output))[0] for output in outputs]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found[-1], logits[0], rtol=1e-5, atol=1e-4)
