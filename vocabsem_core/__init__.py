"""Vocabulary-defined semantics (arXiv 2401.16184): the method. Tensors in, tensors out.

Reads model folders and nothing else; runs alone, without Ray and without the other packages of this repository.
Importing it loads no torch: each public name is imported when it is used first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocabsem_core.calibration.modules import CalibrationSettings
    from vocabsem_core.errors import InputError
    from vocabsem_core.features.encoder import Encoder
    from vocabsem_core.features.heads import OutputHead, head_of
    from vocabsem_core.features.modules import ModuleEncoder
    from vocabsem_core.functional import (
        Calibrator,
        LinearProbe,
        basis_of,
        calibrate,
        encode_texts,
        label_basis,
        probe,
    )
    from vocabsem_core.semantics.affinity import semantic_logits
    from vocabsem_core.semantics.basis import SemanticBasis, semantic_basis

__all__ = [
    "CalibrationSettings",
    "Calibrator",
    "Encoder",
    "InputError",
    "LinearProbe",
    "ModuleEncoder",
    "OutputHead",
    "SemanticBasis",
    "basis_of",
    "calibrate",
    "encode_texts",
    "head_of",
    "label_basis",
    "probe",
    "semantic_basis",
    "semantic_logits",
]

_MODULES = {
    "calibration.modules": ("CalibrationSettings",),
    "errors": ("InputError",),
    "features.encoder": ("Encoder",),
    "features.heads": ("OutputHead", "head_of"),
    "features.modules": ("ModuleEncoder",),
    "functional": ("Calibrator", "LinearProbe", "basis_of", "calibrate", "encode_texts", "label_basis", "probe"),
    "semantics.affinity": ("semantic_logits",),
    "semantics.basis": ("SemanticBasis", "semantic_basis"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
