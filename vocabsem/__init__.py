"""VocabSem in Python: the public names, for scripts and notebooks (docs/python.md).

    import vocabsem

    result = vocabsem.run({"workflow": "compare", "models": ["reference"], "tasks": ["starter-topics"],
                           "methods": ["affinity", "calibration"]})
    result.table()

Importing it loads no torch, Ray or MLflow: each name is imported when it is used first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.errors import StoreError
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
    from workflows.api import Failure, Run, load_model, open_run, plan, run, sweep
    from workflows.config.compare import Strict as Settings
    from workflows.config.space import Domain
    from workflows.errors import ConfigError
    from workflows.inputs.network_sources import open_network
    from workflows.inputs.networks import Network
    from workflows.methods.base import Fitted, Method

__all__ = [
    "CalibrationSettings",
    "Calibrator",
    "ConfigError",
    "Domain",
    "Encoder",
    "Failure",
    "Fitted",
    "InputError",
    "LinearProbe",
    "Method",
    "ModuleEncoder",
    "Network",
    "OutputHead",
    "Run",
    "SemanticBasis",
    "Settings",
    "StoreError",
    "basis_of",
    "calibrate",
    "encode_texts",
    "head_of",
    "label_basis",
    "load_model",
    "open_network",
    "open_run",
    "plan",
    "probe",
    "run",
    "semantic_basis",
    "semantic_logits",
    "sweep",
]

_PLACES = {
    "ConfigError": "workflows.errors.ConfigError",
    "Domain": "workflows.config.space.Domain",
    "Failure": "workflows.api.Failure",
    "Fitted": "workflows.methods.base.Fitted",
    "Method": "workflows.methods.base.Method",
    "Network": "workflows.inputs.networks.Network",
    "Run": "workflows.api.Run",
    "Settings": "workflows.config.compare.Strict",
    "StoreError": "orchestration.errors.StoreError",
    "load_model": "workflows.api.load_model",
    "open_network": "workflows.inputs.network_sources.open_network",
    "open_run": "workflows.api.open_run",
    "plan": "workflows.api.plan",
    "run": "workflows.api.run",
    "sweep": "workflows.api.sweep",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES.get(name, f"vocabsem_core.{name}").rpartition(".")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
