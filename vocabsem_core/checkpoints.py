"""Model folders as transformers lays them out: safetensors, configuration, tokenizer. No pickle, no remote code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vocabsem_core.architectures import Kind, auto_class, kind_of
from vocabsem_core.errors import InputError

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TOKENIZER_PATTERNS = ("vocab.*", "merges.txt", "*.model")
HEAD_BLOCK = 8192  # head rows read at a time


@dataclass(frozen=True)
class TensorPlace:
    """Where one tensor lies: a safetensors file and the tensor's name in it."""

    file: Path
    name: str


@dataclass(frozen=True)
class HeadPlace:
    """Where a model's output head lies on disk."""

    weight: TensorPlace
    bias: TensorPlace | None

    def blocks(self, rows: int, block: int = HEAD_BLOCK) -> Iterator[Float[Tensor, "block d"]]:
        """The first `rows` rows of the weight in the file's dtype, `block` rows at a time; no other tensor is read."""
        with _opened(self.weight.file) as file:
            weight = file.get_slice(self.weight.name)
            for start in range(0, rows, block):
                yield weight[start : min(start + block, rows)]

    def read_bias(self, rows: int) -> Float[Tensor, " rows"] | None:
        if self.bias is None:
            return None
        with _opened(self.bias.file) as file:
            return file.get_tensor(self.bias.name)[:rows].float()

    def rows(self) -> int:
        """Rows of the weight, padding included."""
        with _opened(self.weight.file) as file:
            return file.get_slice(self.weight.name).get_shape()[0]


def _opened(path: Path) -> Any:
    """A safetensors file, its header read. Raises InputError where it is missing or not whole."""
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises InputError where there are none."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickled = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
        hint = (
            f"it has pickled weights ({', '.join(pickled)}), which can run code when loaded; convert them with "
            "`model.save_pretrained(folder)`"
            if pickled
            else "expected a folder that `save_pretrained` wrote"
        )
        raise InputError(f"{folder}: no *.safetensors file; {hint}.")
    return found


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that define the tokenizer. Raises InputError where there are none."""
    named = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    found = named + sorted(path for pattern in _TOKENIZER_PATTERNS for path in folder.glob(pattern))
    if not found:
        raise InputError(
            f"{folder}: no tokenizer file ({', '.join(_TOKENIZER_FILES)}); save the model's tokenizer there."
        )
    return found


def load_tokenizer(folder: Path) -> Any:
    """A fast tokenizer. Raises InputError for a slow one: truncation needs the place of each token in the text."""
    from transformers import AutoTokenizer

    tokenizer_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: transformers cannot build its tokenizer: {error}") from error
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: {type(tokenizer).__name__} has no fast form; save one with a tokenizer.json.")
    return tokenizer


def load_config(folder: Path) -> Any:
    """A model's configuration. Raises InputError where it is missing or of no model that transformers knows."""
    from transformers import AutoConfig

    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json; expected a folder that `save_pretrained` wrote.")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: not the configuration of a model that transformers knows: {error}") from error


def load_model(folder: Path, dtype: str, device: str, four_bit: bool = False) -> Any:
    """A language model with its head, in evaluation mode.

    `four_bit` quantises the blocks on loading, by bitsandbytes; the output matrix stays as it is. Raises InputError
    where files are missing or broken, transformers knows no such model, or bitsandbytes is not installed.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    files = ", ".join(path.name for path in weight_files(folder))
    kind = kind_of(load_config(folder))
    options = _four_bit(dtype, device) if four_bit else {}
    try:
        loaded: Any = auto_class(kind).from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: transformers cannot load {files} as a {kind} language model: {error}") from error
    model, told = loaded
    if told["missing_keys"]:  # transformers would fill them with random numbers
        raise InputError(f"{folder}: its files lack {', '.join(sorted(told['missing_keys']))}; fetch the model again")
    return model.eval() if four_bit else model.eval().to(torch.device(device))


def _four_bit(dtype: str, device: str) -> dict[str, Any]:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise InputError(
            "quantization: 4bit needs bitsandbytes; `pip install bitsandbytes`, or leave `quantization` out"
        )
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=getattr(torch, dtype))
    return {"quantization_config": config, "device_map": {"": device}}


def model_without_memory(folder: Path) -> tuple[Kind, Any]:
    """A model's kind, and the model built from its configuration on the meta device.

    Raises InputError where the configuration is of no language model.
    """
    config = load_config(folder)
    kind = kind_of(config)
    try:
        with torch.device("meta"):
            return kind, auto_class(kind).from_config(config)
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{folder / 'config.json'}: not a {kind} language model that transformers knows: {error}"
        ) from error


def head_place(folder: Path) -> HeadPlace:
    """Find the output head in the files without loading the model, through a model built without memory.

    Raises InputError where the configuration is of no language model or the head's tensor is in no file.
    """
    _, model = model_without_memory(folder)
    linear = model.get_output_embeddings()
    if linear is None:
        raise InputError(f"{folder / 'config.json'}: {type(model).__name__} has no output matrix over the vocabulary.")
    stored = _stored_tensors(folder)
    weight = _find(model, linear, "weight", stored)
    if weight is None and getattr(model.config, "tie_word_embeddings", False):
        weight = _find(model, model.get_input_embeddings(), "weight", stored)
    if weight is None:
        raise InputError(f"{folder}: the output matrix of {type(model).__name__} is in none of its safetensors files.")
    has_bias = getattr(linear, "bias", None) is not None
    return HeadPlace(weight, _find(model, linear, "bias", stored) if has_bias else None)


def embedding_rows(folder: Path, rows: list[int]) -> Float[Tensor, "rows d"]:
    """Rows of the input embedding, float32, without loading the model. Raises InputError where it is in no file."""
    _, model = model_without_memory(folder)
    stored = _stored_tensors(folder)
    place = _find(model, model.get_input_embeddings(), "weight", stored)
    if place is None and getattr(model.config, "tie_word_embeddings", False):
        place = _find(model, model.get_output_embeddings(), "weight", stored)
    if place is None:
        raise InputError(
            f"{folder}: the input embedding of {type(model).__name__} is in none of its safetensors files."
        )
    with _opened(place.file) as file:
        whole = file.get_slice(place.name)
        return torch.cat([whole[row : row + 1].float() for row in rows])


def _stored_tensors(folder: Path) -> dict[str, Path]:
    """tensor name -> file, from the index where there is one: a file beside the indexed ones is not the model's."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
    names: dict[str, Path] = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            names.update(dict.fromkeys(file.keys(), path))
    return names


def _find(model: Any, module: Any, name: str, stored: dict[str, Path]) -> TensorPlace | None:
    """The stored tensor of a module's parameter. Raises InputError where its file is not there.

    Its own name comes before those of modules that it is tied to: where both are stored and differ, transformers loads
    both, whatever the configuration says. A file may leave out the base model's prefix, or use an older name that
    transformers changes on loading.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    older = [rule.reverse_transform() for rule in get_model_conversion_mapping(model) or ()]
    wanted = getattr(module, name)
    names = [f"{path}.{name}" for path, part in model.named_modules() if part is module]
    names += [alias for alias, one in model.named_parameters(remove_duplicate=False) if one is wanted]
    for own in dict.fromkeys(names):
        renamed = [rule.rename_source_key(own)[0] for rule in older]
        by_all = reduce(lambda key, rule: rule.rename_source_key(key)[0], older, own)
        for candidate in (own, own.removeprefix(f"{model.base_model_prefix}."), *renamed, by_all):
            if candidate in stored:
                if not stored[candidate].is_file():
                    raise InputError(f"{stored[candidate]}: no such file, though the index names it; fetch it again")
                return TensorPlace(stored[candidate], candidate)
    return None
