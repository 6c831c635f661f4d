"""Settings that several methods share: what stands for a label, and what states are seen from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import Field

from vocabsem_core.names import Centre
from workflows.methods.base import Need

SHRINKAGE: float = Field(
    1.0,
    ge=0,
    description="of the basis, in mean eigenvalues of the head's Gram matrix; 0: the paper's basis; the larger, the "
    "more its rows point as the head's",
)
CENTRE: Centre = Field(
    "training",
    description="what is taken off the states: the mean of the training rows, whose labels are not read, the mean of "
    "content-free prompts, or nothing",
)
_ROWS: Mapping[str, frozenset[Need]] = {
    "basis": frozenset({"spectrum"}),
    "head": frozenset({"head"}),
    "embedding": frozenset({"head", "embedding"}),
    "class-means": frozenset(),
    "random": frozenset({"head"}),
    "learned": frozenset({"spectrum"}),
    "shuffled": frozenset({"spectrum"}),
    "unrelated": frozenset({"spectrum"}),
    "none": frozenset(),
}
_CENTRES: Mapping[str, frozenset[Need]] = {
    "training": frozenset({"unlabelled"}),
    "content-free": frozenset({"content_free"}),
    "none": frozenset(),
}


def needs_of_rows(settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
    """What the setting `targets` asks for; where a search sets it, what all its values do."""
    return _asked(_ROWS, settings.get("targets", "basis"), "targets" in searched)


def needs_of_centre(settings: Mapping[str, Any], searched: Collection[str]) -> frozenset[Need]:
    """What the setting `centre` asks for; where a search sets it, what all its values do."""
    return _asked(_CENTRES, settings.get("centre", "training"), "centre" in searched)


def _asked(needs: Mapping[str, frozenset[Need]], value: str, any_of_them: bool) -> frozenset[Need]:
    return frozenset().union(*needs.values()) if any_of_them else needs[value]
