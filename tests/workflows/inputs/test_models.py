"""Models are found on disk and known by their content."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import workflows.inputs.catalog
from orchestration.graph import Step
from orchestration.store.fingerprint_cache import FingerprintCache
from tests import tiny
from vocabsem_core.errors import InputError
from workflows.config.compare import Encoding, Execution, ModelConfig
from workflows.errors import ConfigError
from workflows.inputs.catalog import ModelEntry, find_model, find_task
from workflows.inputs.models import (
    Model,
    check_encoding,
    check_unchanged,
    checked_tokenizer,
    content_digests,
    describe,
    local_folder,
)
from workflows.steps.model import encode_step

REFERENCE = Path(workflows.inputs.catalog.__file__).parents[1] / "catalog" / "models" / "reference"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled model elsewhere."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "copy"))


def described(folder: Path, tmp_path: Path, **fields: str) -> Model:
    entry = ModelEntry(ModelConfig.model_validate({"name": "m", "folder": str(folder), **fields}), tmp_path)
    return describe(entry, FingerprintCache(tmp_path / "facts.json"))


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_the_reference_model_is_described(tmp_path: Path) -> None:
    model = describe(find_model("reference", tmp_path), FingerprintCache(tmp_path / "facts.json"))
    assert (model.name, model.folder, model.asked) == ("reference", REFERENCE.resolve(), "float32")
    assert (model.kept_rows, model.window) == (8192, 512)
    assert model.layers == [*(f"layer_{number:02}" for number in range(7)), "head"]
    assert len({model.weights, model.tokenizer, model.head}) == 3


def test_a_copy_elsewhere_is_the_same_model(copy: Path, tmp_path: Path) -> None:
    here, there = described(REFERENCE, tmp_path), described(copy, tmp_path)
    assert (here.weights, here.tokenizer, here.head) == (there.weights, there.tokenizer, there.head)


def test_name_and_dtype_change_no_digest(tmp_path: Path) -> None:
    plain, other = described(REFERENCE, tmp_path), described(REFERENCE, tmp_path, name="other", dtype="bfloat16")
    assert (plain.weights, plain.tokenizer, plain.head) == (other.weights, other.tokenizer, other.head)
    assert (other.name, other.asked, other.stored) == ("other", "bfloat16", "float16")


def test_files_that_a_model_does_not_need_change_no_digest(copy: Path, tmp_path: Path) -> None:
    before = described(copy, tmp_path)
    (copy / "README.md").write_text("a note")
    (copy / "trainer_state.json").write_text("{}")
    after = described(copy, tmp_path)
    assert (after.weights, after.tokenizer, after.head) == (before.weights, before.tokenizer, before.head)


def test_a_changed_tokenizer_changes_only_its_own_digest(copy: Path, tmp_path: Path) -> None:
    before = described(copy, tmp_path)
    rewrite(copy / "tokenizer_config.json", model_max_length=77)
    after = described(copy, tmp_path)
    assert after.tokenizer != before.tokenizer
    assert (after.weights, after.head) == (before.weights, before.head)


def test_a_changed_configuration_changes_the_weights_digest_not_the_head(copy: Path, tmp_path: Path) -> None:
    before = described(copy, tmp_path)
    rewrite(copy / "config.json", layer_norm_epsilon=1e-3)
    after = described(copy, tmp_path)
    assert after.weights != before.weights
    assert (after.tokenizer, after.head) == (before.tokenizer, before.head)


def test_a_changed_weight_of_the_head_changes_weights_and_head(copy: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    before = described(copy, tmp_path)
    tensors = load_file(copy / "model.safetensors")
    tensors["transformer.wte.weight"][5, 7] += 1
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    after = described(copy, tmp_path)
    assert (after.weights != before.weights, after.head != before.head) == (True, True)
    assert after.tokenizer == before.tokenizer


def test_the_files_are_not_read_again_while_size_and_time_stay(copy: Path, tmp_path: Path) -> None:
    stamp = 1_700_000_000
    for path in copy.iterdir():
        os.utime(path, (stamp, stamp))
    before = described(copy, tmp_path)
    size = (copy / "model.safetensors").stat().st_size
    (copy / "model.safetensors").write_bytes(b"\0" * size)  # unreadable now
    os.utime(copy / "model.safetensors", (stamp, stamp))
    assert described(copy, tmp_path) == before


def test_a_copy_with_other_times_is_the_same_model_and_a_changed_one_is_not(copy: Path, tmp_path: Path) -> None:
    model = described(copy, tmp_path)
    check_unchanged(copy, model.stamp, model.files["content"])
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    check_unchanged(copy, model.stamp, model.files["content"])
    with open(copy / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(ConfigError, match="put the same files on every node"):
        check_unchanged(copy, model.stamp, model.files["content"])


def test_a_tokenizer_is_loaded_where_it_is_the_one_of_the_keys(copy: Path, tmp_path: Path) -> None:
    digest = described(copy, tmp_path).tokenizer
    rewrite(copy / "config.json", layer_norm_epsilon=1e-3)  # another model, but the same tokenizer
    assert checked_tokenizer(copy, digest)("a b")["input_ids"]
    rewrite(copy / "tokenizer_config.json", model_max_length=77)
    with pytest.raises(ConfigError, match="changed after the run started"):
        checked_tokenizer(copy, digest)


def test_a_folder_is_relative_to_its_yaml_file(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    assert local_folder(ModelEntry(ModelConfig(name="m", folder="weights"), tmp_path)) == tmp_path / "weights"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model 'm': no folder .*nowhere"):
        described(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json", "tokenizer"])
def test_a_folder_that_lacks_a_part_is_named(copy: Path, tmp_path: Path, missing: str) -> None:
    for path in copy.glob(f"{missing}*"):
        path.unlink()
    with pytest.raises((ConfigError, InputError), match=str(copy)):
        described(copy, tmp_path)


def test_a_model_that_states_no_window_needs_a_length_limit(copy: Path, tmp_path: Path) -> None:
    """BLOOM's configuration, for one, has no `max_position_embeddings`; here its tokenizer has no limit either."""
    import torch
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    BloomForCausalLM(BloomConfig(vocab_size=8192, hidden_size=8, n_layer=1, n_head=2)).save_pretrained(copy)
    tokenizer = copy / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace('"model_max_length": 512', f'"model_max_length": {10**30}'))
    model = described(copy, tmp_path)
    assert model.window is None
    task = find_task("starter-topics", tmp_path, None)
    texts = Step("texts", "texts", 1, "a:b", local={"rows": 4})
    with pytest.raises(ConfigError, match=r"gives a maximum length; set encoding\.max_tokens"):
        check_encoding(model.name, model.layers, model.window, Encoding())
    limited = encode_step(model, task, texts, Encoding(max_tokens=64), Execution())
    assert limited.identity["max_tokens"] == 64


def test_an_adapter_that_appears_in_a_described_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    described(copy, tmp_path)
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter"):
        described(copy, tmp_path)


def test_weights_that_are_not_loaded_change_no_digest(copy: Path, tmp_path: Path) -> None:
    before = described(copy, tmp_path)
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    assert described(copy, tmp_path).weights == before.weights


def test_the_model_type_changes_the_tokenizers_digest_where_it_decides_the_class(copy: Path, tmp_path: Path) -> None:
    stated = copy / "tokenizer_config.json"
    named = described(copy, tmp_path)
    stated.write_text(json.dumps({k: v for k, v in json.loads(stated.read_text()).items() if k != "tokenizer_class"}))
    as_gpt2 = content_digests(copy)["tokenizer"]
    rewrite(copy / "config.json", model_type="qwen2")
    assert len({named.tokenizer, as_gpt2, content_digests(copy)["tokenizer"]}) == 3


@pytest.mark.parametrize(("generation", "same"), [({"decoder_start_token_id": 5}, False), ({"max_length": 9}, True)])
def test_a_generation_configuration_is_part_of_a_model_where_it_states_the_first_token(
    generation: dict[str, int], same: bool, tmp_path: Path
) -> None:
    """The bundled model, a causal one, has such a file too: there it changes nothing."""
    folder = tiny.save(tmp_path / "t5", tiny.t5(decoder_start_token_id=None if not same else 0))
    before = content_digests(folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    assert (content_digests(folder) == before) is same
