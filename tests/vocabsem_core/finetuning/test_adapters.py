"""What is trained: peft's own layers, counted by the papers' formulas, and a model that is as it was afterwards."""

import warnings

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model, get_peft_model_state_dict

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.finetuning.adapters import Adaptation, adapted, check_possible, use

KNOWN = ["gpt2", "gpt_neox", "llama", "mistral", "qwen2", "gemma2", "phi", "opt"]
BOTH = [*KNOWN, "bert", "roberta", "t5", "t5_untied", "bart"]
BUILDERS = {**tiny.ALL, **tiny.MASKED, **tiny.SEQ2SEQ}


def logits(model):
    ids = torch.tensor(tiny.prompts(9))
    extra = {"decoder_input_ids": ids[:, :1]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **extra).logits


def moved(weights):
    """Weights that are not at their start, where adapters change nothing."""
    generator = torch.Generator().manual_seed(3)
    use(weights, {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in weights.items()})


def count(weights):
    return sum(weight.numel() for weight in weights.values())


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("name", BOTH)
def test_outputs_and_files_are_those_of_peft_with_its_defaults(name, kind):
    model = BUILDERS[name]()
    plain = logits(model)
    with adapted(model, Adaptation(kind), seed=0) as weights:
        torch.testing.assert_close(logits(model), plain)  # both start as the identity
        moved(weights)
        changed, stored = logits(model), {key: value.detach().clone() for key, value in weights.items()}
    assert not torch.allclose(changed, plain, atol=1e-4)
    torch.testing.assert_close(logits(model), plain)
    transposed = name == "gpt2"
    config = (LoraConfig if kind == "lora" else IA3Config)(fan_in_fan_out=transposed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = get_peft_model(BUILDERS[name](), config)
    assert set(get_peft_model_state_dict(theirs)) == set(stored)
    use({key.replace(".default", ""): value for key, value in theirs.named_parameters() if value.requires_grad}, stored)
    torch.testing.assert_close(changed, logits(theirs))
    torch.testing.assert_close(changed, logits(theirs.merge_and_unload()), atol=1e-4, rtol=1e-4)


def test_gpt2_counts_are_the_papers():
    model, d, layers = tiny.gpt2(), tiny.WIDTH, tiny.DEPTH
    with adapted(model, Adaptation("lora", rank=4), seed=0) as weights:
        assert count(weights) == layers * (d * 4 + 4 * 3 * d) == 4 * 4 * d * layers
    with adapted(model, Adaptation("ia3"), seed=0) as weights:
        assert count(weights) == 7 * d * layers
    with adapted(model, Adaptation("full"), seed=0) as weights:
        assert count(weights) == sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_query_key_and_value_can_be_named():
    with adapted(tiny.llama(), Adaptation("lora", 2, target_modules=("q_proj", "k_proj", "v_proj")), seed=0) as weights:
        assert count(weights) == tiny.DEPTH * 3 * (2 * tiny.WIDTH + 2 * tiny.WIDTH)


def test_after_full_finetuning_the_model_is_as_it_was():
    model = tiny.gpt2()
    plain = logits(model)
    with adapted(model, Adaptation("full"), seed=0) as weights:
        moved(weights)
        assert not torch.allclose(logits(model), plain, atol=1e-4)
    torch.testing.assert_close(logits(model), plain)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_start_follows_from_the_seed_alone():
    model, starts = tiny.gpt2(), []
    for seed in (0, 1, 0):
        torch.rand(1)
        with adapted(model, Adaptation("lora"), seed) as weights:
            starts.append(torch.cat([value.detach().flatten().clone() for value in weights.values()]))
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("name", ["cohere", "granite", "albert"])
def test_a_family_that_peft_does_not_know_is_told_with_its_layers(name, kind):
    model = BUILDERS[name]()
    with (
        pytest.raises(InputError, match=r"does not know which layers .* target_modules\. Its linear layers: .*"),
        adapted(model, Adaptation(kind), seed=0),
    ):
        pass


def test_its_layers_can_be_named():
    model = tiny.cohere()
    with adapted(model, Adaptation("ia3", target_modules=("k_proj", "v_proj", "down_proj")), seed=0) as weights:
        assert count(weights) == tiny.DEPTH * (2 * tiny.WIDTH + 48)  # the feed-forward layer's input is scaled


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "opt"])
def test_all_linear_is_what_it_is_in_peft(name, kind):
    model = BUILDERS[name]()
    check_possible(model, Adaptation(kind, target_modules=("all-linear",)))
    config = (LoraConfig if kind == "lora" else IA3Config)(target_modules="all-linear", fan_in_fan_out=name == "gpt2")
    if kind == "ia3":
        config.feedforward_modules = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(BUILDERS[name](), config)
    expected = {key.replace(".default", "") for key, value in theirs.named_parameters() if value.requires_grad}
    with adapted(model, Adaptation(kind, target_modules=("all-linear",)), seed=0) as weights:
        assert set(weights) == expected


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (Adaptation("lora", target_modules=("c_atn",)), "'c_atn' is no linear layer .*; the nearest are c_attn"),
        (Adaptation("lora", target_modules=("zzz",)), "there are c_attn, c_fc, c_proj"),
        (Adaptation("lora", target_modules=("lm_head",)), "'lm_head' is no linear layer"),
        (
            Adaptation("ia3", target_modules=("c_attn",), feedforward_modules=("mlp.c_proj",)),
            "not among the target modules: c_attn",
        ),
    ],
)
def test_unknown_target_modules_are_told(how, told):
    with pytest.raises(InputError, match=told), adapted(tiny.gpt2(), how, seed=0):
        pass


def test_weights_of_another_adaptation_are_refused():
    model = tiny.gpt2()
    with adapted(model, Adaptation("ia3"), seed=0) as weights:
        stored = {key: value.detach().clone() for key, value in weights.items()}
    with (
        adapted(model, Adaptation("lora"), seed=0) as weights,
        pytest.raises(InputError, match="of another model"),
    ):
        use(weights, stored)
