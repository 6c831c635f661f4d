"""Model folders: where the head lies, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from vocabsem_core.errors import InputError
from vocabsem_core.features.checkpoints import (
    HeadPlace,
    check_on_gpus,
    embedding_rows,
    head_place,
    load_model,
    load_tokenizer,
)
from vocabsem_core.features.model_folder import tokenizer_files


def rewrite(folder: Path, change: Any) -> None:
    """Change the tensors of an unsharded model folder."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def whole(place: HeadPlace) -> torch.Tensor:
    return torch.cat(list(place.blocks(place.rows())))


@pytest.mark.parametrize("name", tiny.ALL)
def test_the_head_is_found_in_the_files_of_every_architecture(name: str, tmp_path: Path) -> None:
    model = tiny.ALL[name]()
    place = head_place(tiny.save(tmp_path, model))
    linear = model.get_output_embeddings()
    assert torch.equal(whole(place), linear.weight)
    bias = place.read_bias(tiny.VOCABULARY)
    assert torch.equal(bias, linear.bias) if linear.bias is not None else bias is None


def test_a_bos_token_beyond_the_vocabulary_is_no_warning_of_ours_and_other_tokens_are(tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.config.bos_token_id = model.config.eos_token_id = model.config.image_token_id = 50256
    tiny.save(tmp_path, model)
    program = f"from vocabsem_core.features.checkpoints import *; load_model(Path({str(tmp_path)!r}), 'float32', 'cpu')"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "os_token_id" not in told.stdout + told.stderr
    assert "image_token_id must be `None` or an integer within the vocabulary" in told.stderr


@pytest.mark.parametrize("name", tiny.ALL)
def test_embedding_rows_are_the_models_own(name: str, tmp_path: Path) -> None:
    model = tiny.ALL[name]()
    rows = embedding_rows(tiny.save(tmp_path, model), [7, 0, 7])
    assert torch.equal(rows, model.get_input_embeddings().weight[[7, 0, 7]])


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_a_tied_head_is_the_stored_embedding(name: str, tmp_path: Path) -> None:
    place = head_place(tiny.save(tmp_path, tiny.ALL[name]()))
    assert "lm_head" not in place.weight.name


@pytest.mark.parametrize("build", [tiny.gemma3, tiny.t5gemma, tiny.mamba])
def test_the_head_of_a_part_of_more_is_found(build: Any, tmp_path: Path) -> None:
    model = build()
    place = head_place(tiny.save(tmp_path, model))
    assert torch.equal(whole(place), model.get_output_embeddings().weight)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("gpt2", "lm_head.weight"),
        ("qwen2", "lm_head.weight"),
        ("opt", "lm_head.weight"),
        ("t5", "lm_head.weight"),
        ("bert", "cls.predictions.decoder.weight"),
    ],
)
def test_a_head_that_was_trained_apart_is_found_whatever_the_configuration_says(
    name: str, head: str, tmp_path: Path
) -> None:
    build = {**tiny.ALL, **tiny.MASKED, **tiny.SEQ2SEQ}[name]
    model = build()
    tiny.save(tmp_path, model)
    own = torch.randn(model.get_output_embeddings().weight.shape, generator=torch.Generator().manual_seed(3))
    rewrite(tmp_path, lambda tensors: {**tensors, head: own})
    assert torch.equal(load_model(tmp_path, "float32", "cpu").get_output_embeddings().weight, own)
    assert torch.equal(whole(head_place(tmp_path)), own)
    assert torch.equal(embedding_rows(tmp_path, [3]), model.get_input_embeddings().weight[[3]])


def test_a_file_without_the_base_models_prefix_is_understood(tmp_path: Path) -> None:
    model = tiny.gpt2()
    tiny.save(tmp_path, model)
    rewrite(tmp_path, lambda tensors: {name.removeprefix("transformer."): t for name, t in tensors.items()})
    place = head_place(tmp_path)
    assert place.weight.name == "wte.weight"
    assert torch.equal(whole(place), model.lm_head.weight)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi"])
def test_a_sharded_folder_is_read_through_its_index(name: str, tmp_path: Path) -> None:
    model = tiny.ALL[name]()
    tiny.save(tmp_path, model, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    save_file({"lm_head.weight": torch.zeros(1, 1)}, tmp_path / "another.safetensors")  # in no index: not the model's
    assert torch.equal(whole(head_place(tmp_path)), model.get_output_embeddings().weight)


def test_blocks_stop_at_the_rows_asked_for(tmp_path: Path) -> None:
    model = tiny.phi()
    place = head_place(tiny.save(tmp_path, model))
    blocks = list(place.blocks(120, 50))
    assert [len(block) for block in blocks] == [50, 50, 20]
    assert torch.equal(torch.cat(blocks), model.lm_head.weight[:120])
    assert torch.equal(place.read_bias(120), model.lm_head.bias[:120])


def test_blocks_keep_the_files_dtype(tmp_path: Path) -> None:
    place = head_place(tiny.save(tmp_path, tiny.llama().to(torch.bfloat16)))
    assert {block.dtype for block in place.blocks(10)} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_loaded_model_is_the_saved_one_ready_for_evaluation(dtype: str, tmp_path: Path) -> None:
    model = tiny.llama()
    loaded = load_model(tiny.save(tmp_path, model), dtype, "cpu")
    assert not loaded.training
    assert loaded.dtype == getattr(torch, dtype)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.to(loaded.dtype))


def test_a_loaded_tokenizer_is_the_saved_one(tmp_path: Path) -> None:
    loaded = load_tokenizer(tiny.save(tmp_path, tiny.gpt2()))
    assert loaded("a fine film")["input_ids"] == tiny.tokenizer()("a fine film")["input_ids"]
    assert {path.name for path in tokenizer_files(tmp_path)} >= {"tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize("read", [head_place, lambda folder: load_model(folder, "float32", "cpu")])
class TestRefused:
    """Each folder is refused by whoever reads it, whether for its head alone or for the model."""

    def test_pickled_weights(self, read: Any, tmp_path: Path) -> None:
        tiny.save(tmp_path, tiny.gpt2())
        (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"pickled weights \(pytorch_model.bin\).*convert"):
            read(tmp_path)

    def test_no_weights(self, read: Any, tmp_path: Path) -> None:
        (tiny.save(tmp_path, tiny.gpt2()) / "model.safetensors").unlink()
        with pytest.raises(InputError, match=r"no \*.safetensors file"):
            read(tmp_path)

    def test_no_configuration(self, read: Any, tmp_path: Path) -> None:
        (tiny.save(tmp_path, tiny.gpt2()) / "config.json").unlink()
        with pytest.raises(InputError, match=r"config.json"):
            read(tmp_path)

    @pytest.mark.parametrize("text", ["{", json.dumps({"model_type": "nonsense"}), json.dumps({"model_type": "vit"})])
    def test_a_configuration_of_no_language_model(self, read: Any, text: str, tmp_path: Path) -> None:
        (tiny.save(tmp_path, tiny.gpt2()) / "config.json").write_text(text)
        with pytest.raises(
            InputError,
            match=r"language model|the configuration of a model that transformers knows|is not JSON",
        ):
            read(tmp_path)

    def test_no_head_in_the_files(self, read: Any, tmp_path: Path) -> None:
        tiny.save(tmp_path, tiny.llama())
        rewrite(tmp_path, lambda tensors: {name: t for name, t in tensors.items() if name != "lm_head.weight"})
        with pytest.raises(InputError):
            read(tmp_path)

    @pytest.mark.parametrize("keep", [b"version https://git-lfs.github.com/spec/v1\n", None])
    def test_a_weights_file_cut_short_or_never_downloaded(self, read: Any, keep: bytes | None, tmp_path: Path) -> None:
        file = tiny.save(tmp_path, tiny.gpt2()) / "model.safetensors"
        file.write_bytes(keep or file.read_bytes()[:-1000])
        with pytest.raises(InputError, match=r"model.safetensors"):
            read(tmp_path)


def test_a_model_with_missing_weights_is_not_filled_with_random_ones(tmp_path: Path) -> None:
    tiny.save(tmp_path, tiny.llama())
    lost = "model.layers.1.mlp.up_proj.weight"
    rewrite(tmp_path, lambda tensors: {name: t for name, t in tensors.items() if name != lost})
    with pytest.raises(InputError, match=lost):
        load_model(tmp_path, "float32", "cpu")


def test_a_sharded_folder_that_lacks_the_heads_file_is_refused(tmp_path: Path) -> None:
    tiny.save(tmp_path, tiny.llama(), max_shard_size="20KB")
    head_place(tmp_path).weight.file.unlink()
    with pytest.raises(InputError, match=r"model-.*safetensors"):
        head_place(tmp_path).rows()


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    tiny.gpt2().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no tokenizer file"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "albert"])
def test_a_tokenizer_of_another_kind_of_model_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tiny.save(tmp_path, tiny.gpt2())
    for name, change in (("config.json", {"model_type": kind}), ("tokenizer_config.json", {"tokenizer_class": None})):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **change}))
    with pytest.raises(InputError, match=r"cannot build its tokenizer: .*Save the model's own tokenizer there"):
        load_tokenizer(folder)


def test_a_tokenizer_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    (tiny.save(tmp_path, tiny.gpt2()) / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_layers_that_no_gpu_holds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not fit on \d+ GPUs: 2 of 3 parts are left over; give more by"):
        check_on_gpus(tmp_path, {"embed": 0, "layers.0": "cpu", "layers.1": "disk"})
    check_on_gpus(tmp_path, {"embed": 0, "layers.0": 1, "layers.1": torch.device("cuda", 1)})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_model_for_several_gpus_needs_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not fit on 0 GPUs"):
        load_model(tiny.save(tmp_path, tiny.llama()), "float32", "gpus")
