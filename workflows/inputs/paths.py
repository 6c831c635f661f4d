"""Where a file lies that a user names."""

from __future__ import annotations

import os
from pathlib import Path

from orchestration.host.paths import expanded
from workflows.errors import ConfigError


def named(path: str, where: str) -> str:
    """A path with `~` expanded. `where`: the option or variable that has it. Raises ConfigError for other variables."""
    try:
        return expanded(path)
    except ValueError as error:
        raise ConfigError(f"{where} {path}: {error}") from error


def located(base: Path, reference: str) -> Path:
    """The absolute path of a file that is named relative to a folder.

    A link keeps its own name, which says what the file is (in the caches of Hugging Face it leads to a file named by a
    hash), and what is named relative to it is looked for beside it.
    """
    return Path(os.path.abspath(base / reference))
