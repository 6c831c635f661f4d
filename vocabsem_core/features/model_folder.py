"""The files of a model folder: which of them are read, and what in a folder is refused.

transformers decides by the files that it finds what it loads: an adapter, other weights, a program. Here it is given a
folder with the files that were chosen and no other, so whatever else lies in a model's folder changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vocabsem_core.errors import InputError

CONFIG, GENERATION = "config.json", "generation_config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_ADAPTER = "adapter_config.json"
_TOKENIZER_FILES = ("tokenizer.json", _TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")
_TOKENIZER_PATTERNS = ("vocab.*", "merges.txt", "*.model", "tokenizer.*.json")


@contextmanager
def folder_of(files: list[Path]) -> Iterator[Path]:
    """A folder with links to these files alone."""
    with TemporaryDirectory(prefix="vocabsem-model-") as place:
        for file in files:
            (Path(place) / file.name).symlink_to(file.resolve())
        yield Path(place)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads, in its order. Raises InputError where there are none.

    These are what the configuration names (`transformers_weights`), else model.safetensors, else what the index lists.
    """
    index = index_file(folder)
    names = [_chosen(folder)] if index is None else sorted(set(json_file(index).get("weight_map", {}).values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{folder}: weights in {name!r}; expected a file of the folder itself")
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file, though the model's weights are there; fetch it again")
    return [folder / name for name in names]


def index_file(folder: Path) -> Path | None:
    """The index of weights in several files; None where one file has them all."""
    chosen = _chosen(folder)
    return folder / chosen if chosen.endswith(".index.json") and (folder / chosen).is_file() else None


def _chosen(folder: Path) -> str:
    if named := json_file(folder / CONFIG).get("transformers_weights"):
        return str(named)
    for name in (_WEIGHTS, _INDEX):
        if (folder / name).is_file():
            return name
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        raise InputError(
            f"{folder}: no {_WEIGHTS} and no {_INDEX}; it has {', '.join(others)}. Rename the weights to {_WEIGHTS}, "
            "or name a folder that `save_pretrained` wrote."
        )
    pickled = [path.name for path in sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))]
    if gguf := sorted(path.name for path in folder.glob("*.gguf")):
        raise InputError(f"{folder}: no *.safetensors file; name its GGUF file as the model: {folder / gguf[0]}")
    hint = (
        f"it has pickled weights ({', '.join(pickled)}), which can run code when loaded; convert them with "
        "`model.save_pretrained(folder)`"
        if pickled
        else "expected a folder that `save_pretrained` wrote"
    )
    raise InputError(f"{folder}: no *.safetensors file; {hint}.")


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that define the tokenizer. Raises InputError where there are none."""
    named = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    matched = sorted(path for pattern in _TOKENIZER_PATTERNS for path in folder.glob(pattern))
    if not (found := list(dict.fromkeys(named + matched))):
        raise InputError(
            f"{folder}: no tokenizer file ({', '.join(_TOKENIZER_FILES)}); save the model's tokenizer there."
        )
    return found


def settled_beside(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """What config.json decides of a tokenizer beside its own files: its class where they name none or another."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    named = json_file(folder / _TOKENIZER_CONFIG).get("tokenizer_class")
    found: dict[str, Any] = {}
    if named is None or tokenizer_class_from_name(named) is not type(tokenizer):
        found["tokenizer_class"] = type(tokenizer).__name__
    if getattr(tokenizer, "fix_mistral_regex", False):
        found["fix_mistral_regex"] = True
    return found


def check_plain(folder: Path) -> None:
    """Raises InputError for a folder that is more than a model's plain weights, before anything of it is loaded.

    That is: an adapter, code that would have to be run, or weights that were quantised when they were saved.
    """
    if (folder / _ADAPTER).is_file():
        raise InputError(
            f"{folder}: holds an adapter ({_ADAPTER}). Move the adapter's files into a folder of their own and merge "
            "it with peft: `PeftModel.from_pretrained(model, ADAPTER).merge_and_unload().save_pretrained(NEW)`; then "
            "save the tokenizer there too, and name the new folder."
        )
    config = json_file(folder / CONFIG)
    _check_need_no_code(folder, config)
    for found in _anywhere(config, "quantization_config", "compression_config"):
        method = f" ({found['quant_method']})" if isinstance(found, dict) and "quant_method" in found else ""
        raise InputError(
            f"{folder / CONFIG}: quantization_config{method} says that the weights were quantised when they were "
            "saved; expected plain weights. Name the model that it was made from, with `quantization: 4bit` in a "
            "model's YAML file where memory is short. Where the weights are plain, take the entry out of config.json."
        )


def _check_need_no_code(folder: Path, config: Mapping[str, Any]) -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    advice = "code of a model folder is never run. Name a model that transformers itself knows."
    known = config.get("model_type") in CONFIG_MAPPING
    nested = [code for value in config.values() for code in _anywhere(value, "auto_map")]
    for code in nested if known else [*nested, config.get("auto_map")]:
        if code:
            raise InputError(f"{folder / CONFIG}: auto_map names code of its own ({_told(code)}); {advice}")
    for name in _anywhere(config, "attn_implementation", "experts_implementation"):
        if "/" in str(name):
            raise InputError(f"{folder / CONFIG}: names a kernel of the hub ({_told(name)}); {advice}")
    tokenizer = json_file(folder / _TOKENIZER_CONFIG)
    code, own = tokenizer.get("auto_map"), tokenizer.get("tokenizer_class")
    code = code.get("AutoTokenizer") if isinstance(code, dict) else code
    if code and (own is None or tokenizer_class_from_name(own) is None):
        raise InputError(f"{folder / _TOKENIZER_CONFIG}: auto_map names code of its own ({_told(code)}); {advice}")


def _told(code: Any) -> str:
    values = code.values() if isinstance(code, dict) else code if isinstance(code, list) else [code]
    return ", ".join(str(value) for value in values if value)


def _anywhere(value: Any, *names: str) -> Iterator[Any]:
    """What stands under these names in a JSON value, at any depth, without empty entries."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in names and inner:
                yield inner
            yield from _anywhere(inner, *names)
    elif isinstance(value, list):
        for inner in value:
            yield from _anywhere(inner, *names)


def json_file(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises InputError for anything else."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}; expected a JSON object; fetch it again")
    return found
