"""Networks by what a workflow file names: functions in Python files, and pretrained models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.errors import ConfigError
from workflows.inputs.networks import Network, OpenNetwork, Source
from workflows.inputs.pretrained import find_pretrained
from workflows.inputs.python_files import find_function, is_function, naming_line

if TYPE_CHECKING:
    from torch import nn


def is_network(reference: str, base: Path) -> bool:
    """Whether a reference names a network, and no language model."""
    return is_function(reference) or find_pretrained(reference, base) is not None


def source_of(reference: str, base: Path) -> Source:
    """What gives the network of a reference for which `is_network` holds."""
    if is_function(reference):
        return find_function(reference, base)
    found = find_pretrained(reference, base)
    if found is None:
        raise ConfigError(f"{reference}: is no longer a folder with an image or sound classifier of transformers")
    return found


def open_network(reference: str, base: Path) -> OpenNetwork:
    """A network by `file.py:function`, a folder, `torchvision:NAME` or `timm:NAME`; relative paths start from `base`.

    Raises ConfigError for what gives no network, or none that can be used.
    """
    from torch import Tensor, nn

    from vocabsem_core.errors import InputError
    from vocabsem_core.features.modules import ModuleEncoder

    source = source_of(reference, base)
    given = source.call()
    wrong = None
    if not isinstance(given, Network):
        wrong = f"returned {type(given).__name__}; expected a vocabsem.Network(module, read, example)"
    elif not isinstance(given.module, nn.Module):
        wrong = f"its module is a {type(given.module).__name__}; expected a torch.nn.Module"
    elif not callable(given.read):
        wrong = f"its read is a {type(given.read).__name__}; expected a function of a row"
    elif not isinstance(given.example, Tensor):
        wrong = f"its example is a {type(given.example).__name__}; expected a tensor"
    if wrong is not None:
        raise ConfigError(f"{source}: {wrong}")
    try:
        with naming_line(source.file, "its module"):
            encoder = ModuleEncoder(given.module, given.example, given.head)
    except InputError as error:
        raise ConfigError(f"{source}: {error}") from error
    found = OpenNetwork(source, given, encoder, _digest(given.module))
    rows, names = len(encoder.head.weight), found.classes
    if len(names) != rows or len(set(names)) != rows:
        raise ConfigError(f"{source}: classes are {', '.join(names)}; expected {rows} names, each once")
    return found


def _digest(module: nn.Module) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
