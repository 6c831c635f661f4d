"""Finetuning on a GPU: it starts where the processor does, learns, resumes, and keeps to its memory."""

import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from tests import tiny
from tests.vocabsem_core.finetuning.test_trainer import BUILDERS, SCHEDULE, TOKENS, begin, labelled, prompts
from vocabsem_core.finetuning.adapters import Adaptation, adapted
from vocabsem_core.finetuning.trainer import Classifier, Finetuning, Prompts
from vocabsem_core.numerics.memory import forget_peaks, peak_bytes, tokens_of_a_pass

KINDS = ("lora", "ia3", "full")


def trained(device, kind, bf16=False, dropout=0.0):
    """Losses and scores after all epochs of a Llama, which has no dropout of its own."""
    model = tiny.llama().to(device)
    with adapted(model, Adaptation(kind, dropout=dropout), 0) as weights:
        fit = Finetuning(Classifier(model, TOKENS, bf16), weights, labelled(), labelled(), SCHEDULE, 0)
        while not fit.over:
            fit.epoch()
        fit.use_best()
        return fit.losses, Classifier(model, TOKENS, bf16).scores(prompts())


@pytest.mark.parametrize("name", BUILDERS)
def test_class_logits_are_the_processors(name):
    found, expected = (
        Classifier(BUILDERS[name]().to(device), TOKENS, bf16=False).scores(prompts()) for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_the_losses_are_the_processors(kind):
    (ours, found), (theirs, expected) = (trained(device, kind) for device in ("cuda", "cpu"))
    assert ours == pytest.approx(theirs, rel=1e-3)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_with_dropout_and_products_in_bfloat16_it_learns(kind):
    losses, scores = trained("cuda", kind, bf16=True, dropout=0.1)
    with torch.no_grad():
        before = functional.cross_entropy(Classifier(tiny.llama(), TOKENS, bf16=False).scores(prompts()), labelled()[1])
    assert min(losses) < float(before)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("kind", KINDS)
def test_interrupted_and_resumed_it_comes_to_the_same(kind, tmp_path):
    model, how = tiny.gpt2().to("cuda"), Adaptation(kind, dropout=0.2)
    with adapted(model, how, 0) as weights:
        whole = begin(model, weights)
        while not whole.over:
            whole.epoch()
    with adapted(model, how, 0) as weights:
        first = begin(model, weights)
        first.epoch()
        first.save(tmp_path / "state.safetensors")
    torch.rand(7, device="cuda")
    with adapted(model, how, 0) as weights:
        second = begin(model, weights)
        second.load(tmp_path / "state.safetensors")
        while not second.over:
            second.epoch()
    assert second.losses == pytest.approx(whole.losses, rel=1e-3)  # gradients are added up in no fixed order


def test_a_pass_of_a_large_model_keeps_to_its_memory():
    """As many tokens as a pass takes: what is kept for the backward pass is near the 8 GiB that they are chosen for."""
    config = LlamaConfig(
        vocab_size=1000, hidden_size=2048, intermediate_size=8192, num_hidden_layers=8, num_attention_heads=16
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    tokens, length = tokens_of_a_pass(config), 256
    classifier = Classifier(model, [[1], [2]], bf16=True)
    assert classifier.part_tokens == tokens < 16384
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 1000, (tokens // length, length), generator=draw).tolist()
    rows = Prompts(ids, [length - 1] * len(ids))
    with adapted(model, Adaptation("lora"), 0):
        model.train()
        classifier.check(rows)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        forget_peaks()
        functional.cross_entropy(
            classifier.logits(rows), torch.zeros(len(ids), dtype=torch.long, device="cuda")
        ).backward()
        taken = (peak_bytes()["peak_cuda"] - before) / 2**30
    print(f"a pass of {tokens} tokens took {taken:.1f} GiB beyond the weights")
    assert 4 < taken < 16
