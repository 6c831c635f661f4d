"""The options before a command: which versions are installed, and log lines for whoever looks for a cause."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

_PACKAGES = ("vocabsem", "torch", "transformers", "ray", "mlflow")
_LOGGERS = ("orchestration", "workflows")


def versions() -> str:
    """A line for each package that results depend on, without importing one."""
    return "\n".join(f"{name} {_version(name)}" for name in _PACKAGES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _show_versions(asked: bool) -> None:
    if asked:
        print(versions())
        raise typer.Exit


def about(
    shows_versions: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the versions of vocabsem, torch, transformers, ray and mlflow.",
            callback=_show_versions,
            is_eager=True,
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log lookups, waits and retries to stderr.")] = False,
) -> None:
    """What every command takes before its name."""
    if verbose:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
