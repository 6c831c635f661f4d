"""Models of a workflow: where their files lie, and the facts that keys are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestration.graph import key_of
from orchestration.store import files
from orchestration.store.fingerprint_cache import FingerprintCache
from workflows.config.compare import Encoding
from workflows.config.layers import layer_problems
from workflows.errors import ConfigError
from workflows.inputs.catalog import ModelEntry
from workflows.inputs.gguf import dequantised
from workflows.inputs.hub import hub_model
from workflows.inputs.paths import located
from workflows.inputs.precision import Machine, this_machine

_MODEL_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".bin")


@dataclass(frozen=True)
class Model:
    """A model found on disk.

    Attributes:
        name: in results.
        folder: its files.
        asked: the precision that is asked for: one of its names, or `auto`.
        stored: the precision of its stored head.
        weights, tokenizer, head: digests of content.
        kept_rows: rows of the LM head with a token: 1 + the tokenizer's largest id (ours; the rest is padding).
        window: longest prompt in tokens, the smaller of configuration and tokenizer; None where neither states it.
        layers: names of the layers that can be stored.
        parameters: how many weights it has, shared ones once.
        width: of the LM head, d.
        kind: "causal", "masked" or "seq2seq".
        four_bit: whether the blocks are quantised on loading.
        stamp: sizes and times of the files the digests were made from.
        machine: what the machine that plans is fast in.
    """

    name: str
    folder: Path
    asked: str
    stored: str
    weights: str
    tokenizer: str
    head: str
    kept_rows: int
    window: int | None
    layers: list[str]
    parameters: int
    width: int
    kind: str
    four_bit: bool
    stamp: str
    machine: Machine

    def dtype(self, gpus: float | None) -> str:
        """The precision of the forward pass, by the GPUs that a workflow file gives it; None: one if there are any."""
        return self.machine.dtype(self.asked, self.stored, gpus)

    @property
    def files(self) -> dict[str, Any]:
        """Where the files lie, and how to tell that they are still the same: local values, no part of a key."""
        content = {"model": self.weights, "tokenizer": self.tokenizer}
        return {"folder": str(self.folder), "stamp": self.stamp, "content": content}

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The files that a step on the model reads."""
        return tuple(map(str, model_files(self.folder)))


def check_encoding(name: str, layers: list[str], window: int | None, encoding: Encoding) -> None:
    """Raises ConfigError for what of `encoding` a model cannot do: a layer it does not have, no length limit at all."""
    problems = layer_problems(name, encoding.layers, layers)
    if window is None and encoding.max_tokens is None:
        problems.append(f"{name}: neither configuration nor tokenizer gives a maximum length; set encoding.max_tokens")
    if problems:
        raise ConfigError("\n".join(problems), ("encoding",))


def token_limit(window: int | None, encoding: Encoding) -> int | None:
    """The most tokens of a prompt: the model's window or what the workflow file asks for, whichever is smaller."""
    return min((limit for limit in (window, encoding.max_tokens) if limit is not None), default=None)


def find_files(entry: ModelEntry, facts: FingerprintCache) -> Path:
    """The model's folder, fetched from the hub or made from a GGUF file where needed.

    Raises ConfigError where it is not there, InputError for a GGUF file that cannot be read.
    """
    if entry.config.gguf is not None:
        return dequantised(entry, facts)
    if entry.config.hub is not None:
        return hub_model(entry.config.hub, entry.config.revision)
    return local_folder(entry)


def local_folder(entry: ModelEntry) -> Path:
    """The folder that an entry names. Raises ConfigError where it is not there."""
    folder = located(entry.base, str(entry.config.folder))
    if not folder.is_dir():
        raise ConfigError(f"model {entry.config.name!r}: no folder {folder}")
    return folder


def describe(entry: ModelEntry, facts: FingerprintCache) -> Model:
    """Find a model and its facts; the files are read only when a size or time changed (16 GB take a while)."""
    folder = find_files(entry, facts)
    sources = model_files(folder)
    found = facts.get("model 7", sources, lambda: _facts(folder))
    return Model(
        entry.config.name,
        folder,
        asked=entry.config.dtype,
        **found,
        four_bit=entry.config.quantization == "4bit",
        stamp=stamp_of(folder),
        machine=this_machine(facts),
    )


def stamp_of(folder: Path) -> str:
    """Changes when a file of the model changes its size or time."""
    return key_of({path.name: [path.stat().st_size, path.stat().st_mtime_ns] for path in model_files(folder)})


def check_unchanged(folder: Path, stamp: str, content: Mapping[str, str]) -> None:
    """Raises ConfigError where the files are no longer those that keys were made from.

    Copies of a folder on other nodes have other times: then `content`, digests of weights and tokenizer, is compared.
    """
    if stamp_of(folder) != stamp and content_digests(folder) != dict(content):
        raise _changed(folder)


def checked_tokenizer(folder: Path, digest: str) -> Any:
    """A model's tokenizer. Raises ConfigError where its files are no longer those that keys were made from."""
    from vocabsem_core.features.checkpoints import load_tokenizer

    tokenizer = load_tokenizer(folder)
    if _tokenizer_digest(folder, tokenizer) != digest:
        raise _changed(folder)
    return tokenizer


def _changed(folder: Path) -> ConfigError:
    return ConfigError(
        f"{folder}: a file of the model changed after the run started; run again, and on a cluster put the "
        "same files on every node"
    )


def content_digests(folder: Path) -> dict[str, str]:
    """Digests of a model's weights and of its tokenizer, as they stand in keys; reads every file."""
    from vocabsem_core.features.checkpoints import config_files, load_tokenizer
    from vocabsem_core.features.model_folder import weight_files

    weights = [*config_files(folder), *weight_files(folder)]
    return {"model": _digest(weights), "tokenizer": _tokenizer_digest(folder, load_tokenizer(folder))}


def _tokenizer_digest(folder: Path, tokenizer: Any) -> str:
    """Of its files, and of what config.json decides beside them: a class that they do not state, a corrected split."""
    from vocabsem_core.features.model_folder import settled_beside, tokenizer_files

    return key_of({**_checksums(tokenizer_files(folder)), **settled_beside(folder, tokenizer)})


def model_files(folder: Path) -> list[Path]:
    """The files of a model that anything here reads."""
    return sorted(path for path in folder.iterdir() if path.suffix in _MODEL_SUFFIXES)


def _facts(folder: Path) -> dict[str, Any]:
    import torch
    import xxhash

    from vocabsem_core.features.architectures import layer_names, scale_and_softcap
    from vocabsem_core.features.checkpoints import head_place, load_tokenizer, model_without_memory
    from vocabsem_core.features.prompts import window_of

    tokenizer = load_tokenizer(folder)
    place = head_place(folder)
    kind, model = model_without_memory(folder)
    kept_rows = min(place.rows(), 1 + max(tokenizer.get_vocab().values()))
    head = xxhash.xxh3_128()
    for block in place.blocks(place.rows()):
        head.update(block.contiguous().view(torch.uint8).numpy().data)
    bias = place.read_bias(place.rows())
    (first,) = place.blocks(1)
    digests = content_digests(folder)  # last: what is missing has been told better by then
    shape = [str(first.dtype)], scale_and_softcap(model.config)
    return {
        "stored": str(first.dtype).removeprefix("torch."),
        "weights": digests["model"],
        "tokenizer": digests["tokenizer"],
        "head": key_of(
            {"weight": head.hexdigest(), "bias": None if bias is None else bias.tolist(), "form": list(shape)}
        ),
        "kept_rows": kept_rows,
        "window": window_of(model, tokenizer),
        "layers": layer_names(model),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "width": first.shape[1],
        "kind": kind,
    }


def _digest(paths: list[Path]) -> str:
    return key_of(_checksums(paths))


def _checksums(paths: list[Path]) -> dict[str, str]:
    return {path.name: files.checksum(path) for path in paths}
