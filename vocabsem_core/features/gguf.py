"""GGUF files: a model in one file, most of them quantised, as folders that `save_pretrained` writes.

transformers reads them with the package gguf: what it makes of a file is the model. Nothing else here reads GGUF.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import redirect_stderr
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from vocabsem_core.errors import InputError
from vocabsem_core.features.architectures import auto_class, kind_of
from vocabsem_core.features.model_folder import CONFIG, folder_of
from vocabsem_core.numerics.ticks import tick

_PLAIN = {"F32": torch.float32, "F64": torch.float32, "BF16": torch.bfloat16}  # the others fit float16
_TOKENS = "tokenizer.ggml.tokens"


def write_description(file: Path, folder: Path) -> None:
    """A file's configuration and tokenizer. Raises InputError for a file without one, or that cannot be read."""
    _check_whole(file)
    _write_tokenizer(file, folder)
    _read(file, "AutoConfig").save_pretrained(folder)


def write_model(file: Path, folder: Path) -> None:
    """The whole model: weights too, dequantised.

    They are stored in the dtype that most of them have in the file; quantised ones, whose scales are float16, as
    float16 where that can hold them, else as float32. Raises InputError for what transformers cannot read.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # Each of the four reads the whole header, which takes 20 s for a vocabulary of 262,144.
    own = _check_whole(file)
    tick(1, 4, "parts", "next the tokenizer")
    _write_tokenizer(file, folder)
    tick(2, 4, "parts", "next the configuration")
    config = _read(file, "AutoConfig")
    tick(3, 4, "parts", "next the weights")
    kind = kind_of(config)
    for dtype in dict.fromkeys((own, torch.float32)):
        state = _weights(file, auto_class(kind).__name__, deepcopy(config), dtype)
        if all(bool(tensor.isfinite().all()) for tensor in state.values()):
            break
    config.dtype = dtype
    with torch.device("meta"):  # the model that was read says that it is quantised, and cannot be saved
        model = auto_class(kind).from_config(config, trust_remote_code=False)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    settings.pop("transformers_version", None)  # in no key: the same file is the same model under every version
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_whole(file: Path) -> torch.dtype:
    """The dtype of most weights. Raises InputError for what is no GGUF file with all its tensors and a tokenizer."""
    from gguf import GGUFReader

    try:
        found = GGUFReader(file)
    except Exception as error:  # whatever a reader of bytes comes upon in a file that is cut or of another kind
        raise InputError(f"{file}: not a GGUF file, or not the whole of one ({error}); fetch it again") from error
    if _TOKENS not in found.fields:
        raise InputError(
            f"{file}: has no tokenizer ({_TOKENS}); name a GGUF file with one, or the folder or hub id of the model"
        )
    sizes: Counter[str] = Counter()
    for tensor in found.tensors:
        sizes[tensor.tensor_type.name] += tensor.n_elements
    return _PLAIN.get(max(sizes, key=lambda name: sizes[name], default="F32"), torch.float16)


def _write_tokenizer(file: Path, folder: Path) -> None:
    _read(file, "AutoTokenizer").save_pretrained(folder)


def _weights(file: Path, loader: str, config: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from transformers import GgufConfig

    how = {"config": config, "dtype": dtype, "quantization_config": GgufConfig(dequantize=True)}
    model, told = _read(file, loader, **how, output_loading_info=True)
    if told["missing_keys"]:  # transformers has filled them with random numbers
        raise InputError(f"{file}: lacks {', '.join(sorted(told['missing_keys']))}; name a GGUF file with every tensor")
    return model.state_dict()


def _read(file: Path, loader: str, **options: Any) -> Any:
    """What a class of transformers makes of a file. Raises InputError with its message where it cannot."""
    import transformers

    with folder_of([file]) as place, redirect_stderr(io.StringIO()):  # its progress bar is not for log files
        try:
            return getattr(transformers, loader).from_pretrained(
                place, gguf_file=file.name, local_files_only=True, trust_remote_code=False, **options
            )
        except (
            Exception
        ) as error:  # of an unknown architecture or quantisation: of several classes, KeyError among them
            told = f"{type(error).__name__}: {error}".replace(str(place), str(file.parent))
            raise InputError(f"{file}: transformers cannot read this GGUF file ({told})") from error
