"""docker/compose.yaml as compose reads it: YAML merged, variables put in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[-?])([^}]*))?\}")  # the three forms that our file uses


def example_environment() -> dict[str, str]:
    """The variables of docker/.env.example."""
    lines = (DOCKER / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def interpolated(text: str, environment: Mapping[str, str]) -> str:
    """Text with its variables put in. Raises KeyError, with the message of the file, for one that must be set."""

    def value(found: re.Match) -> str:
        name, form, rest = found.groups()
        if environment.get(name):
            return environment[name]
        if form == ":-":
            return rest
        raise KeyError(f"{name}: {rest}")

    return VARIABLE.sub(value, text)


def load(environment: Mapping[str, str]) -> dict[str, Any]:
    """The file with every variable put in; the `x-` parts are left as they are.

    As in compose, values are put in after the YAML was read: none can change its structure.
    """
    return _walked(yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8")), environment)


def _walked(node: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _walked(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [_walked(value, environment) for value in node]
    return interpolated(node, environment) if isinstance(node, str) else node
