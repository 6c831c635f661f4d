"""A GGUF file becomes a model folder whose model is the one that transformers reads from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tests import tiny
from tests.gguf_files import F16, F32, Q8, write_gguf
from vocabsem_core.errors import InputError
from vocabsem_core.features.checkpoints import load_model, load_tokenizer, model_without_memory
from vocabsem_core.features.encoder import Encoder
from vocabsem_core.features.gguf import write_description, write_model

PROMPTS = tiny.prompts(5, 17, 9)


def converted(file: Path) -> Path:
    (folder := file.with_suffix("")).mkdir()
    write_model(file, folder)
    return folder


def own(file: Path, dtype: torch.dtype) -> Any:
    """What transformers itself makes of the file."""
    plain = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=dtype, quantization_config=plain
    ).eval()


@pytest.mark.parametrize(("kind", "stored"), [(Q8, "float16"), (F16, "float16"), (F32, "float32")])
def test_states_are_those_of_transformers_own_loading(kind: Any, stored: str, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", kind)
    folder, dtype = converted(file), getattr(torch, stored)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {dtype}
    found = Encoder(load_model(folder, stored, "cpu"), ["layer_00", "layer_01", "head"]).encode(PROMPTS, 64)
    expected = Encoder(own(file, dtype), ["layer_00", "layer_01", "head"]).encode(PROMPTS, 64)
    exact = Encoder(own(file, torch.float32), ["head"]).encode(PROMPTS, 64)
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)
    torch.testing.assert_close(found["head"].float(), exact["head"], rtol=0.02, atol=0.01)


def test_the_tokenizer_is_that_of_transformers_own_loading(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    text = "review: a fine film\n sentiment: quite néw <s>"
    expected = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)(text)["input_ids"]
    assert load_tokenizer(converted(file))(text)["input_ids"] == expected


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    folder = converted(write_gguf(tmp_path / "tiny.gguf", F32, without="output.weight"))
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_model(folder, "float32", "cpu")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_weights_that_float16_cannot_hold_are_stored_as_float32(tmp_path: Path) -> None:
    folder = converted(write_gguf(tmp_path / "tiny.gguf", Q8, scale=2e6))
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}


def test_the_same_file_gives_the_same_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    one, other = (converted(write_gguf(tmp_path / name)) for name in ("one.gguf", "other.gguf"))
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in other.iterdir()
    }
    assert not {"transformers_version", "quantization_config"} & set(json.loads((one / "config.json").read_text()))


def test_a_description_has_configuration_and_tokenizer_and_no_weights(tmp_path: Path) -> None:
    write_description(write_gguf(tmp_path / "tiny.gguf"), folder := tmp_path)
    kind, model = model_without_memory(folder)
    assert (kind, model.config.num_hidden_layers) == ("causal", tiny.DEPTH)
    assert load_tokenizer(folder)("a fine film")["input_ids"]
    assert not list(folder.glob("*.safetensors"))


@pytest.mark.parametrize("share", [0.0005, 0.2, 0.6, 0.999])
def test_a_file_that_is_cut_is_refused(share: float, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(InputError, match=r"tiny\.gguf: not a GGUF file, or not the whole of one"):
        converted(file)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "tiny.gguf").write_text("text " * 100)
    with pytest.raises(InputError, match="not a GGUF file, or not the whole of one"):
        converted(file)


def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", architecture="warble")
    with pytest.raises(InputError, match=r"tiny\.gguf: transformers cannot read this GGUF file .*warble"):
        converted(file)


def test_a_quantisation_that_cannot_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: Any) -> None:
    import gguf.quants

    file = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.delitem(gguf.quants._type_traits, Q8)
    with pytest.raises(InputError, match=r"tiny\.gguf: transformers cannot read this GGUF file .*Q8_0"):
        converted(file)


def test_a_file_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", tokenizer=False)
    with pytest.raises(InputError, match="has no tokenizer"):
        converted(file)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", without="blk.1.ffn_up.weight")
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        converted(file)
