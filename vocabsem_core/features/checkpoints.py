"""Model folders as transformers lays them out: safetensors, configuration, tokenizer. No pickle, no remote code."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import auto_class, decoder_start, kind_of
from vocabsem_core.features.model_folder import (
    CONFIG,
    GENERATION,
    check_plain,
    folder_of,
    index_file,
    json_file,
    tokenizer_files,
    weight_files,
)
from vocabsem_core.names import ModelKind

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


def load_tokenizer(folder: Path) -> Any:
    """A fast tokenizer. Raises InputError for a slow one: truncation needs the place of each token in the text."""
    from transformers import AutoTokenizer

    check_plain(folder)
    files, config = tokenizer_files(folder), None
    if (folder / CONFIG).is_file():  # has a say in the tokenizer's class
        files, config = [*files, folder / CONFIG], load_config(folder)
    with folder_of(files) as place:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                place, config=config, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            # The tokenizers library raises a bare Exception for files that do not fit the class.
            told = _without(error, place, folder)
            raise InputError(
                f"{folder}: transformers cannot build its tokenizer: {told}. "
                "Save the model's own tokenizer there with save_pretrained."
            ) from error
    if not tokenizer.is_fast:
        raise InputError(f"{folder}: {type(tokenizer).__name__} has no fast form; save one with a tokenizer.json.")
    return tokenizer


def load_config(folder: Path) -> Any:
    """A model's configuration; of an encoder-decoder it states the decoder's first token.

    Raises InputError where it is missing, of no model that transformers knows, or of a folder that is more than a
    model's plain weights.
    """
    config = _read_config(folder)
    if kind_of(config) == "seq2seq":
        config.decoder_start_token_id = decoder_start(config, json_file(folder / GENERATION))
    return config


def config_files(folder: Path) -> list[Path]:
    """config.json, and generation_config.json where that alone states an encoder-decoder's first token."""
    config = _read_config(folder)
    silent = kind_of(config) == "seq2seq" and getattr(config, "decoder_start_token_id", None) is None
    return [folder / CONFIG, *([folder / GENERATION] if silent and (folder / GENERATION).is_file() else [])]


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    # of this logger alone, whose filters are kept once each; whoever builds a model has read its configuration here
    logging.getLogger("transformers.configuration_utils").addFilter(_concerns_us)
    check_plain(folder)
    file = folder / CONFIG
    if not file.is_file():
        raise InputError(f"{folder}: no config.json; expected a folder that `save_pretrained` wrote.")
    with folder_of([file]) as place:
        try:
            config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            told = _without(error, place, folder)
            raise InputError(f"{file}: not the configuration of a model that transformers knows: {told}") from error
    config.__dict__.pop("auto_map", None)  # names code of the folder, which is never run
    return config


def _concerns_us(record: logging.LogRecord) -> bool:
    """Not the warning of a bos or eos token beyond a small vocabulary: nothing here generates text."""
    return not record.getMessage().startswith(("Model config: bos_token_id must", "Model config: eos_token_id must"))


def _without(error: Exception, place: Path, folder: Path) -> str:
    """What transformers says, about the model's own folder."""
    return str(error).replace(str(place), str(folder))


def load_model(folder: Path, dtype: str, device: str, four_bit: bool = False) -> Any:
    """A language model with its head, in evaluation mode.

    Args:
        folder: with config.json, weights as safetensors, and tokenizer files.
        dtype: torch's name: "float32", "bfloat16", "float16".
        device: torch's name: "cpu", "cuda"; or "gpus": accelerate shares the layers out among all GPUs in sight.
        four_bit: quantise the blocks on loading, by bitsandbytes; the LM head stays as it is.

    Raises InputError where files are missing or broken, transformers knows no such model, it does not fit the GPUs, or
    bitsandbytes is not installed.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    config, weights = load_config(folder), weight_files(folder)
    kind, index = kind_of(config), index_file(folder)
    options = {**_placed(device, four_bit), **(_four_bit(dtype) if four_bit else {})}
    with folder_of([*weights, *([index] if index else []), folder / CONFIG]) as place:
        try:
            loaded: Any = auto_class(kind).from_pretrained(
                place,
                config=config,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, SafetensorError) as error:
            files, told = ", ".join(path.name for path in weights), _without(error, place, folder)
            raise InputError(
                f"{folder}: transformers cannot load {files} as a {kind} language model: {told}"
            ) from error
    model, told = loaded
    if told["missing_keys"]:  # transformers would fill them with random numbers
        raise InputError(f"{folder}: its files lack {', '.join(sorted(told['missing_keys']))}; fetch the model again")
    if device == "gpus":
        check_on_gpus(folder, getattr(model, "hf_device_map", {"": model.device}))
    return model.eval() if options else model.eval().to(torch.device(device))


def _placed(device: str, four_bit: bool) -> dict[str, Any]:
    """Where transformers puts the layers while it loads them; nothing: on the processor."""
    if device == "gpus":
        return {"device_map": "auto"}
    return {"device_map": {"": device}} if four_bit else {}


def check_on_gpus(folder: Path, places: Mapping[str, Any]) -> None:
    """Raises InputError where accelerate left layers on the processor or on disk: every batch would wait for them."""
    elsewhere = [layer for layer, place in places.items() if str(place) in ("cpu", "disk")]
    if elsewhere:
        raise InputError(
            f"{folder}: does not fit on {torch.cuda.device_count()} GPUs: {len(elsewhere)} of {len(places)} parts are "
            "left over; give more by execution.gpus_per_encoder, or take quantization: 4bit"
        )


def _four_bit(dtype: str) -> dict[str, Any]:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise InputError(
            "quantization: 4bit needs bitsandbytes; `pip install bitsandbytes`, or leave `quantization` out"
        )
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=getattr(torch, dtype))
    return {"quantization_config": config}


def model_without_memory(folder: Path) -> tuple[ModelKind, Any]:
    """A model's kind, and the model built from its configuration on the meta device.

    Raises InputError where the configuration is of no language model.
    """
    config = load_config(folder)
    kind = kind_of(config)
    try:
        with torch.device("meta"):
            return kind, auto_class(kind).from_config(config, trust_remote_code=False)
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
        raise InputError(f"{folder / 'config.json'}: {type(model).__name__} has no LM head over the vocabulary.")
    stored = _stored_tensors(folder)
    weight = _find(model, linear, "weight", stored)
    if weight is None and getattr(model.config, "tie_word_embeddings", False):
        weight = _find(model, model.get_input_embeddings(), "weight", stored)
    if weight is None:
        raise InputError(f"{folder}: the LM head of {type(model).__name__} is in none of its safetensors files.")
    has_bias = getattr(linear, "bias", None) is not None
    return HeadPlace(weight, _find(model, linear, "bias", stored) if has_bias else None)


def stored_dtype(folder: Path) -> str:
    """The precision in which a model's head is stored."""
    (first,) = head_place(folder).blocks(1)
    return str(first.dtype).removeprefix("torch.")


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
    """tensor name -> file; of a tensor in two files the later counts, as for transformers.

    Raises InputError for 8-bit floating-point numbers, which mean nothing without the scales beside them.
    """
    names: dict[str, Path] = {}
    for path in weight_files(folder):
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                if (dtype := file.get_slice(name).get_dtype()).startswith("F8"):
                    raise InputError(f"{path}: tensor {name} is quantised ({dtype}); expected plain weights")
                names[name] = path
    return names


def _find(model: Any, module: Any, name: str, stored: dict[str, Path]) -> TensorPlace | None:
    """The stored tensor of a module's parameter; None where no file has it.

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
                return TensorPlace(stored[candidate], candidate)
    return None
