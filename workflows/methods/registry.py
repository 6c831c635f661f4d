"""The methods, by name. A new one is a new file and a line here; a user's own is a file of theirs, by its path."""

from __future__ import annotations

from pathlib import Path

from workflows.errors import ConfigError, nearest
from workflows.inputs.paths import located
from workflows.methods.adapter import PeftAdapter, adapter_method, is_adapter
from workflows.methods.affinity import Affinity
from workflows.methods.affinity_centred import CentredAffinity
from workflows.methods.base import Method
from workflows.methods.calibration import Calibration
from workflows.methods.calibration_paper import CentredPaperCalibration, PaperCalibration
from workflows.methods.centroid import Centroid
from workflows.methods.custom import is_own, own_method
from workflows.methods.finetuned import FullFinetuning, Ia3, Lora
from workflows.methods.knn import Knn
from workflows.methods.knn_lm import KnnLm
from workflows.methods.knn_prompting import KnnPrompting
from workflows.methods.linear_probe import LinearProbe
from workflows.methods.semantic_prior import SemanticPrior
from workflows.methods.zero_shot import Icl, IclBm25, IclDense, ZeroShot

_ALL: tuple[Method, ...] = (
    ZeroShot(),
    Affinity(),
    CentredAffinity(),
    Calibration(),
    PaperCalibration(),
    CentredPaperCalibration(),
    SemanticPrior(),
    LinearProbe(),
    Centroid(),
    Knn(),
    KnnLm(),
    KnnPrompting(),
    Icl(),
    IclBm25(),
    IclDense(),
    Lora(),
    Ia3(),
    FullFinetuning(),
    PeftAdapter(),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def method_named(name: str, base: Path = Path()) -> Method:
    """A method by its name, or a user's own or adapter by the path of its file, which is relative to the folder `base`.

    Raises ConfigError for an unknown name, with the nearest one, and for a file that holds no method.
    """
    if is_own(name):
        return own_method(located(base, name))
    if is_adapter(name):
        return adapter_method(located(base, name))
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; {nearest(name, list(METHODS))} Or name a method's .py file.")
    return METHODS[name]
