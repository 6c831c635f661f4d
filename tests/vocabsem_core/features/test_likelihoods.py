"""Log-likelihoods of whole words against a plain pass over prompt and word for each label, without padding or keys."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from torch import Tensor

from tests import tiny
from tests.vocabsem_core.features.test_encoder import parts_beside
from vocabsem_core.errors import InputError
from vocabsem_core.features import encoder as encoder_module
from vocabsem_core.features import likelihoods as likelihoods_module
from vocabsem_core.features.architectures import blocks
from vocabsem_core.features.encoder import Encoded
from vocabsem_core.features.likelihoods import WordScorer
from vocabsem_core.names import WHOLE

LENGTHS = (3, 11, 1, 7, 20, 7, 2, 7)
ONE, SEVERAL = [[5], [9], [200]], [[5, 7], [9], [5, 7, 30, 2], [44, 5]]


@torch.no_grad()
def plain(model: Any, prompts: list[list[int]], words: list[list[int]]) -> Tensor:
    found = torch.zeros(len(prompts), len(words), dtype=torch.float64)
    for row, prompt in enumerate(prompts):
        for label, word in enumerate(words):
            told = model(input_ids=torch.tensor([prompt + word])).logits[0].double().log_softmax(dim=-1)
            found[row, label] = sum(told[len(prompt) - 1 + place, token] for place, token in enumerate(word))
    return found


def scored(model: Any, prompts: list[list[int]], words: list[list[int]], *given: Any, **more: Any) -> Tensor:
    return WordScorer(model).score(prompts, [words] * len(prompts), *given, **more)


@pytest.mark.parametrize("words", [ONE, SEVERAL], ids=["one token", "several tokens"])
@pytest.mark.parametrize("name", [*tiny.ALL, "mamba"])
def test_log_likelihoods_equal_a_plain_pass_for_each_label(name: str, words: list[list[int]]) -> None:
    model, prompts = (tiny.ALL | {"mamba": tiny.mamba})[name]().double(), tiny.prompts(*LENGTHS)
    found = scored(model, prompts, words, 24)
    torch.testing.assert_close(found.double(), plain(model, prompts, words), rtol=0, atol=1e-5)


@pytest.mark.parametrize("words", [ONE, SEVERAL], ids=["one token", "several tokens"])
@pytest.mark.parametrize("batch_tokens", [1, 24, 1024])
def test_they_do_not_depend_on_the_batch_size(batch_tokens: int, words: list[list[int]]) -> None:
    model, prompts = tiny.llama(), tiny.prompts(*LENGTHS)
    found = scored(model, prompts, words, batch_tokens)
    torch.testing.assert_close(found.double(), plain(model, prompts, words), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", tiny.ALL)
@pytest.mark.parametrize("batch_tokens", [1, 24, 1024])
def test_after_a_shared_prefix_they_are_the_same(name: str, batch_tokens: int) -> None:
    """The prefix, run once, is longer than the windows of the models with sliding attention."""
    model, (prefix,) = tiny.ALL[name](), tiny.prompts(37)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    scorer = WordScorer(model)
    found = scorer.score(prompts, [SEVERAL] * len(prompts), batch_tokens, shared=len(prefix))
    torch.testing.assert_close(found.double(), plain(model, prompts, SEVERAL), rtol=0, atol=3e-5)
    again = scorer.score(prompts, [SEVERAL] * len(prompts), batch_tokens, shared=len(prefix))
    assert torch.equal(found, again)  # the prefix's keys were not added to


def test_words_may_differ_from_prompt_to_prompt() -> None:
    model, prompts = tiny.gpt2(), tiny.prompts(4, 4, 9)
    words = [[[5], [9]], [[5, 7], [9]], [[1, 2, 3], [7, 8]]]
    found = WordScorer(model).score(prompts, words)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(found[row].double(), plain(model, [prompt], words[row])[0], rtol=0, atol=1e-5)


def test_prompts_and_prefix_are_run_once_and_words_on_their_keys() -> None:
    model, (prefix,) = tiny.gpt2(), tiny.prompts(30)
    prompts = [prefix + prompt for prompt in tiny.prompts(*LENGTHS)]
    read: list[int] = []
    scorer = WordScorer(model)
    scorer.score(prompts, [SEVERAL] * len(prompts), shared=30)  # with the check of the first prompt
    model.transformer.h[0].register_forward_pre_hook(lambda _, args: read.append(args[0].shape[0] * args[0].shape[1]))
    scorer.score(prompts, [SEVERAL] * len(prompts), shared=30)
    assert read[0] == 30
    later = 3 * 3  # tokens of the three words of several tokens, with padding, that are read
    assert sum(read[1:]) == sum(LENGTHS) + later * len(LENGTHS)


@pytest.mark.parametrize(("module", "bound"), [(encoder_module, "_HELD_BYTES"), (likelihoods_module, "_HELD_LOGITS")])
def test_little_is_held_at_once_where_little_may_be(module: Any, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny.gpt2(), tiny.prompts(*LENGTHS)
    expected = scored(model, prompts, SEVERAL)
    monkeypatch.setattr(module, bound, 1)
    torch.testing.assert_close(scored(model, prompts, SEVERAL), expected, rtol=0, atol=1e-5)


def test_what_is_known_is_not_run_again() -> None:
    model, prompts = tiny.llama(), tiny.prompts(*LENGTHS)
    seen: list[Encoded] = []
    whole = scored(model, prompts, SEVERAL, 24, seen.append)
    assert sorted(row for batch in seen for row in batch.rows) == list(range(len(prompts)))
    again: list[Encoded] = []
    found = scored(model, prompts, SEVERAL, 24, again.append, known=seen[:3])
    assert [batch.rows for batch in again] == [batch.rows for batch in seen[3:]]
    assert torch.equal(found, whole)
    assert seen[0].states.keys() == {WHOLE}


def test_a_half_precision_models_are_summed_in_float32() -> None:
    model, prompts = tiny.llama().to(torch.bfloat16), tiny.prompts(*LENGTHS)
    found = scored(model, prompts, SEVERAL)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), plain(model, prompts, SEVERAL), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("build", [tiny.bert, tiny.t5])
def test_a_model_that_is_not_causal_is_refused(build: Any) -> None:
    with pytest.raises(InputError, match="whole words are scored by a causal one"):
        WordScorer(build())


def test_a_token_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="beyond the model's"):
        scored(tiny.llama(), tiny.prompts(3), [[5], [tiny.VOCABULARY]])


def test_a_model_whose_keys_are_not_what_they_seem_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihoods_module, "_selected", lambda past, rows: None)
    with pytest.raises(InputError, match="whole words cannot be scored with it"):
        scored(tiny.llama(), tiny.prompts(6), SEVERAL)


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_layers_on_several_devices_give_the_same(name: str, tmp_path: Path) -> None:
    model, prompts = tiny.ALL[name](), [[5, 6, *prompt] for prompt in tiny.prompts(*LENGTHS)]
    last = next(part for part, module in model.named_modules() if module is blocks(model)[-1])
    places = dict.fromkeys(parts_beside(model, last), "cpu") | {last: "disk"}
    spread = dispatch_model(copy.deepcopy(model), places, main_device="cpu", offload_dir=tmp_path)
    for shared in (0, 2):
        found = scored(spread, prompts, SEVERAL, 24, shared=shared)
        torch.testing.assert_close(found.double(), plain(model, prompts, SEVERAL), rtol=0, atol=1e-5)
