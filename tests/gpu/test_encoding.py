"""States computed on a GPU against those of the processor."""

import json
from importlib.util import find_spec

import pytest
import torch

from tests import tiny
from tests.benchmarks.common import REFERENCE
from tests.integration.workspace import STARTER
from tests.vocabsem_core.features.test_encoder import LAYERS, LENGTHS, plain_forward
from vocabsem_core.features.checkpoints import load_model, load_tokenizer
from vocabsem_core.features.encoder import Encoder, common_prefix
from vocabsem_core.features.prompts import tokenize
from vocabsem_core.numerics.matmul import bf16_is_fast

OTHERS = {**tiny.MASKED, **tiny.SEQ2SEQ, "mamba": tiny.mamba}
NEAR = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 3e-2}  # length of the difference, as a share


def apart(found, expected):
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def prompts():
    """Real prompts of the reference model."""
    lines = (STARTER / "test.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    rows = [{"text": json.loads(line)["text"]} for line in lines]
    return [one.ids for one in tokenize(load_tokenizer(REFERENCE), "Review: {text}\nSentiment:", rows, 512)]


@pytest.fixture(scope="module")
def expected(prompts):
    """Their states on the processor, in float32: the reference model's, by layer."""
    model = load_model(REFERENCE, "float32", "cpu")
    return Encoder(model, ["layer_03", "head", "head:mean"]).encode(prompts)


@pytest.mark.parametrize("name", tiny.ALL)
def test_states_of_every_layer_are_those_of_a_plain_forward_on_the_processor(name):
    prompts = tiny.prompts(*LENGTHS)
    hidden, _ = plain_forward(tiny.ALL[name](), prompts)
    found = Encoder(tiny.ALL[name]().to("cuda"), LAYERS).encode(prompts, batch_tokens=24)
    for layer, states in zip(["layer_00", "layer_01", "head"], hidden, strict=True):
        assert found[layer].device.type == "cpu"
        torch.testing.assert_close(found[layer], states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_states_of_other_families_are_the_processors(name):
    prompts = tiny.prompts(*LENGTHS)
    found, expected = (Encoder(OTHERS[name]().to(device)).encode(prompts)["head"] for device in ("cuda", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1024, 16384])
@pytest.mark.parametrize("dtype", NEAR, ids=str)
def test_a_real_models_states_are_near_the_processors(dtype, batch_tokens, prompts, expected):
    model = load_model(REFERENCE, str(dtype).removeprefix("torch."), "cuda")
    found = Encoder(model, list(expected)).encode(prompts, batch_tokens)
    for layer, states in expected.items():
        assert found[layer].dtype == dtype
        assert apart(found[layer], states) < NEAR[dtype], layer


def test_a_shared_prefix_is_run_once_to_the_same_states(prompts):
    model, before = load_model(REFERENCE, "float32", "cuda"), prompts[0][:40]
    longer = [[*before, *one] for one in prompts]
    assert common_prefix(longer) >= 40
    encoder = Encoder(model, ["head", "head:mean"])
    plain, shared = encoder.encode(longer), encoder.encode(longer, shared=40)
    for layer, states in plain.items():
        assert apart(shared[layer], states) < NEAR[torch.float32], layer


def test_the_same_batches_give_the_same_bytes(prompts):
    model = load_model(REFERENCE, "bfloat16", "cuda")
    first, second = (Encoder(model).encode(prompts, 4096)["head"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_a_model_quantised_to_four_bits_keeps_its_head_and_gives_like_states(prompts, expected):
    model = load_model(REFERENCE, "bfloat16", "cuda", four_bit=True)
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16
    linear = [type(part).__name__ for part in model.modules()]
    assert "Linear4bit" in linear
    found = Encoder(model).encode(prompts)["head"]
    assert float(torch.cosine_similarity(found.float(), expected["head"]).mean()) > 0.9


def test_bfloat16_is_chosen_from_ampere_on():
    assert bf16_is_fast("cuda") == (torch.cuda.get_device_capability() >= (8, 0))
