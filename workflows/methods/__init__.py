"""The methods, by name. A new one is a new file and a line here."""

from __future__ import annotations

from workflows.errors import ConfigError, nearest
from workflows.methods.affinity import Affinity
from workflows.methods.base import Method
from workflows.methods.calibration import Calibration, PaperCalibration
from workflows.methods.knn import Knn
from workflows.methods.linear_probe import LinearProbe
from workflows.methods.zero_shot import ZeroShot

METHODS: dict[str, Method] = {
    method.name: method for method in (ZeroShot(), Affinity(), Calibration(), PaperCalibration(), LinearProbe(), Knn())
}


def method_named(name: str) -> Method:
    """Raises ConfigError for an unknown name, with the nearest one."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; {nearest(name, list(METHODS))}")
    return METHODS[name]
