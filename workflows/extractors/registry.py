"""The kinds of feature extractor. A new one is a new file and a line here."""

from __future__ import annotations

from pathlib import Path

from workflows.extractors.base import ExtractorKind
from workflows.extractors.language_model import LANGUAGE_MODEL
from workflows.extractors.network import NETWORK

KINDS: list[ExtractorKind] = [NETWORK, LANGUAGE_MODEL]  # the last one is for whatever no other knows


def extractor_kind(reference: str, base: Path) -> ExtractorKind:
    """The kind of what a workflow file names under `models`; relative paths start from `base`."""
    return next(kind for kind in KINDS if kind.knows(reference, base))
