"""What a training that was interrupted goes on from: tensors and a few words about them in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from vocabsem_core.errors import InputError


def save_state(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the file; tensors on the CPU that share no memory. Raises InputError where it cannot be written."""
    try:
        save_file(dict(tensors), path, dict(metadata))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: cannot be written ({error}). The checkpoint before it is kept: make room, then run again."
        ) from error


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file. Raises InputError where it is not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.offset_keys()}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole checkpoint ({error}); remove it and run again") from error


def optimizer_state(optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of what an optimizer remembers, on the CPU, by "number of the parameter/name"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value.cpu().clone() for index, known in state.items() for name, value in known.items()}


def use_moments(optimizer: Optimizer, known: Mapping[str, Tensor]) -> None:
    """Let an optimizer remember what `optimizer_state` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for place, value in known.items():
        index, name = place.split("/")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def below(tensors: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
    """The tensors whose names begin with "folder/", by the rest of their names."""
    return {name.removeprefix(f"{folder}/"): value for name, value in tensors.items() if name.startswith(f"{folder}/")}
