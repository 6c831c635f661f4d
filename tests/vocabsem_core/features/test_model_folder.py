"""What lies in a model folder beside its plain weights is never run, and is refused or changes nothing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.checkpoints import (
    config_files,
    embedding_rows,
    head_place,
    load_config,
    load_model,
    load_tokenizer,
    model_without_memory,
)
from vocabsem_core.features.encoder import Encoder
from vocabsem_core.features.heads import head_of
from vocabsem_core.features.model_folder import settled_beside, tokenizer_files, weight_files

READERS = [
    load_config,
    load_tokenizer,
    model_without_memory,
    head_place,
    lambda folder: embedding_rows(folder, [0]),
    lambda folder: load_model(folder, "float32", "cpu"),
]
NOVEL = {"AutoConfig": "novel.NovelConfig", "AutoModelForCausalLM": "novel.NovelModel"}


def rewrite(path: Path, **changes: Any) -> None:
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **changes}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good model beside a program that leaves a mark when it is imported; whoever is asked a question answers yes."""
    made = tiny.save(tmp_path / "model", tiny.gpt2())
    (made / "novel.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).touch()\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 1000))
    return made


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "novel", "auto_map": NOVEL}),
        ("config.json", {"model_type": "novel", "auto_map": {"AutoConfig": "someone/else--novel.NovelConfig"}}),
        ("config.json", {"decoder": {"model_type": "novel", "auto_map": NOVEL}}),
        ("config.json", {"attn_implementation": "someone/kernel:forward"}),
        ("tokenizer_config.json", {"tokenizer_class": "Novel", "auto_map": {"AutoTokenizer": ["novel.Novel", None]}}),
        ("tokenizer_config.json", {"tokenizer_class": "Novel", "auto_map": ["novel.Novel", None]}),
    ],
)
def test_a_folder_that_needs_code_of_its_own_is_refused_and_the_code_not_run(
    read: Any, file: str, changes: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder / file, **changes)
    with pytest.raises(InputError, match=rf"{file}: .*code of a model folder is never run") as told:
        read(folder)
    assert "trust_remote_code" not in str(told.value)
    assert not (folder.parent / "mark").exists()
    assert capsys.readouterr().out == ""  # nobody was asked


@pytest.mark.parametrize("read", READERS)
def test_code_that_transformers_does_not_need_is_not_run(read: Any, folder: Path) -> None:
    rewrite(folder / "config.json", auto_map={**NOVEL, "AutoModelForMaskedLM": "novel.NovelModel"})
    rewrite(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "novel.Novel"]})
    for name in ("processor_config.json", "preprocessor_config.json", "generation_config.json"):
        rewrite(folder / name, auto_map={"AutoProcessor": "novel.Novel"}, custom_generate="novel")
    read(folder)
    assert not (folder.parent / "mark").exists()


def test_a_known_model_of_another_kind_is_refused_without_a_question(folder: Path) -> None:
    rewrite(folder / "config.json", model_type="vit", auto_map={"AutoModelForCausalLM": "novel.NovelModel"})
    with pytest.raises(InputError, match="language model") as told:
        model_without_memory(folder)
    assert "trust_remote_code" not in str(told.value)
    assert not (folder.parent / "mark").exists()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("alone", [False, True])
def test_an_adapter_is_refused(read: Any, alone: bool, folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 64}))
    if alone:
        (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds an adapter.*merge_and_unload"):
        read(folder)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's call, in transformers
def test_the_advice_on_adapters_merges_one(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = LoraConfig(target_modules=["c_attn"], init_lora_weights=False, fan_in_fan_out=True)
    adapted = get_peft_model(tiny.gpt2(), settings).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    model = AutoModelForCausalLM.from_pretrained(folder)
    PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload().save_pretrained(tmp_path / "merged")
    ids = torch.tensor(tiny.prompts(5))
    merged = load_model(tmp_path / "merged", "float32", "cpu")
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
    assert not torch.allclose(merged(ids).logits, tiny.gpt2()(ids).logits, atol=1e-2)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}},
        {"text_config": {"quantization_config": {"quant_method": "awq"}}},
        {"compression_config": {"quant_method": "compressed-tensors"}},
    ],
)
def test_weights_that_were_quantised_when_saved_are_refused(read: Any, changes: dict[str, Any], folder: Path) -> None:
    rewrite(folder / "config.json", **changes)
    with pytest.raises(InputError, match=r"quantization_config \((gptq|fp8|awq|compressed-tensors)\)") as told:
        read(folder)
    assert "\n" not in str(told.value)


def test_an_entry_without_quantisation_is_none(folder: Path) -> None:
    rewrite(folder / "config.json", quantization_config=None)
    load_model(folder, "float32", "cpu")


def test_8_bit_numbers_without_a_configuration_are_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    first = next(name for name in tensors if name.endswith("c_fc.weight"))
    tensors[first] = tensors[first].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=rf"tensor {first} is quantised \(F8_E4M3\)"):
        head_place(folder)


def test_one_weights_file_comes_before_an_index_and_before_all_others(folder: Path) -> None:
    """As transformers chooses; the head is read from what it loads."""
    wanted = tiny.gpt2().get_input_embeddings().weight
    other = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    for name in ("another", "model.fp16", "zzz"):
        save_file(other, folder / f"{name}.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(other, "zzz.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in weight_files(folder)] == ["model.safetensors"]
    for choice, expected in ((None, wanted), ("another.safetensors", wanted + 1)):
        rewrite(folder / "config.json", transformers_weights=choice)
        assert torch.equal(torch.cat(list(head_place(folder).blocks(tiny.VOCABULARY))), expected)
        assert torch.equal(load_model(folder, "float32", "cpu").get_output_embeddings().weight, expected)


def test_weights_of_a_variant_alone_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(InputError, match=r"it has model\.fp16\.safetensors\. Rename"):
        head_place(folder)


@pytest.mark.parametrize("place", ["../model/model.safetensors", "/etc/model.safetensors"])
def test_weights_elsewhere_are_refused(place: str, folder: Path) -> None:
    rewrite(folder / "config.json", transformers_weights=place)
    with pytest.raises(InputError, match="expected a file of the folder itself"):
        head_place(folder)


def test_other_files_change_neither_model_nor_tokenizer(folder: Path) -> None:
    prompt = "review: a fine film"
    model, tokens = load_model(folder, "float32", "cpu"), load_tokenizer(folder)(prompt)["input_ids"]
    expected = model(torch.tensor([tokens])).logits
    rewrite(folder / "generation_config.json", bos_token_id=7, decoder_start_token_id=9)
    rewrite(folder / "chat_template.json", chat_template="{{ nothing }}")
    (folder / "chat_template.jinja").write_text("{{ nothing }}")
    (folder / "tekken.json").write_text("{}")
    (folder / "distcp").mkdir()
    again = load_model(folder, "float32", "cpu")
    assert load_tokenizer(folder)(prompt)["input_ids"] == tokens
    assert torch.equal(again(torch.tensor([tokens])).logits, expected)


def test_what_decides_the_tokenizer_beside_its_files_is_known(folder: Path) -> None:
    """Its class, where its files do not name it, is that of the model type."""
    assert settled_beside(folder, load_tokenizer(folder)) == {}
    stated = json.loads((folder / "tokenizer_config.json").read_text())
    stated.pop("tokenizer_class")
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    assert settled_beside(folder, load_tokenizer(folder)) == {"tokenizer_class": "GPT2Tokenizer"}
    (folder / "tokenizer.9.0.0.json").write_bytes((folder / "tokenizer.json").read_bytes())
    assert folder / "tokenizer.9.0.0.json" in tokenizer_files(folder)  # a file that tokenizer_config.json can choose


@pytest.mark.parametrize(
    ("build", "generation", "expected"),
    [
        (tiny.t5, {"decoder_start_token_id": 5}, 5),
        (tiny.t5, None, 0),  # the padding token
        (tiny.longt5, {"decoder_start_token_id": 5}, 5),
        (tiny.longt5, None, 0),
        (tiny.mbart, {"decoder_start_token_id": 5}, 5),
        (tiny.mbart, None, 3),  # the begin token
    ],
)
def test_the_decoders_first_token_is_found_as_transformers_does(
    build: Any, generation: dict[str, int] | None, expected: int, tmp_path: Path
) -> None:
    tiny.save(tmp_path, build(decoder_start_token_id=None))
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert load_config(tmp_path).decoder_start_token_id == expected
    names = [path.name for path in config_files(tmp_path)]
    assert names == ["config.json", *(["generation_config.json"] if generation else [])]
    model = load_model(tmp_path, "float32", "cpu")
    states = Encoder(model).encode(tiny.prompts(4))["head"].clone()
    with torch.no_grad():
        start = torch.tensor([[expected]])
        plain = model(input_ids=torch.tensor(tiny.prompts(4)), decoder_input_ids=start).logits[0]
        assert torch.allclose(head_of(model).logits(states), plain, atol=1e-3)


def test_a_generation_configuration_is_none_of_a_models_files_where_the_token_is_stated(tmp_path: Path) -> None:
    tiny.save(tmp_path, tiny.t5())
    rewrite(tmp_path / "generation_config.json", decoder_start_token_id=5)
    assert [path.name for path in config_files(tmp_path)] == ["config.json"]
    assert load_config(tmp_path).decoder_start_token_id == 0


def test_a_decoder_without_a_first_token_is_refused(tmp_path: Path) -> None:
    tiny.save(tmp_path, tiny.t5(decoder_start_token_id=None))
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    rewrite(tmp_path / "config.json", pad_token_id=None)
    with pytest.raises(InputError, match="states a decoder_start_token_id; set the token"):
        load_config(tmp_path)
