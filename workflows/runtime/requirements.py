"""What a workflow needs of a cluster, and what is recorded of the software that ran it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestration.graph import Step
from orchestration.ray_backend.preflight import Needs
from orchestration.store.artifacts import Store

PACKAGES = ("vocabsem_core", "orchestration", "workflows", "vocabsem")
LIBRARIES = ("torch", "transformers", "ray", "pyarrow", "numpy", "scikit-learn", "tokenizers", "peft")
RECORDED = ("vocabsem", *LIBRARIES)


def needs_of(steps: Sequence[Step], store: Store, missing: Sequence[str] = ()) -> Needs:
    """What the steps need that will run; `missing` is what is known to be missing already."""
    return Needs(
        store=store.root,
        steps=steps,
        source=PACKAGES,
        packages=LIBRARIES,
        missing=missing,
        mirror=store.mirror,
        install="Install this version of VocabSem there, or use `vocabsem submit`, which uploads the source.",
    )
