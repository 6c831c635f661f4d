"""Pretrained image and sound classifiers by name: a folder of transformers, `torchvision:NAME` or `timm:NAME`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.execution.work import version_of
from workflows.errors import ConfigError, nearest
from workflows.inputs.networks import Network
from workflows.inputs.paths import located
from workflows.inputs.pretrained_inputs import image_network, sound_network

if TYPE_CHECKING:
    from torch import Tensor, nn

_NAMED = re.compile(r"(torchvision|timm):(\S+)")
_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_IMAGES, _SOUNDS = "ForImageClassification", ("ForAudioClassification", "ForSequenceClassification")


@dataclass(frozen=True)
class Pretrained:
    """A classifier that someone else trained.

    Attributes:
        file: its folder, or how a library's model is named: "timm:resnet18.a1_in1k".
        title: its name in results.
        digest: of what decides how inputs are made, where the weights do not: the folder's configuration, or the
            library's name and version.
        files: what a node must have.
        make: loads it.
    """

    file: str
    title: str
    digest: str
    files: tuple[str, ...]
    make: Callable[[], Network]

    def __str__(self) -> str:
        return self.file

    def call(self) -> Network:
        """The network. Raises ConfigError, in a line, for whatever the library raises."""
        try:
            return self.make()
        except ConfigError:
            raise
        except Exception as error:  # a damaged folder, a download without a network
            first = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{self}: the model cannot be loaded: {type(error).__name__}: {first}") from error


def find_pretrained(reference: str, base: Path) -> Pretrained | None:
    """What a reference names; None where it is none. Raises ConfigError where its library is not installed."""
    if named := _NAMED.fullmatch(reference):
        library, name = named.groups()
        version = version_of(library)
        if version is None:
            raise ConfigError(f"{reference}: {library} is not installed; pip install {library}")
        make = {"torchvision": _of_torchvision, "timm": _of_timm}[library]
        return Pretrained(reference, name, _digest(f"{reference} {version}".encode()), (), lambda: make(name))
    folder = located(base, reference)
    if not (folder / _PREPROCESSOR).is_file() or not _architecture(folder).endswith((_IMAGES, *_SOUNDS)):
        return None
    configuration = b"\n".join((folder / name).read_bytes() for name in (_CONFIG, _PREPROCESSOR))
    return Pretrained(
        str(folder), folder.name, _digest(configuration), (str(folder),), lambda: _of_transformers(folder)
    )


def _architecture(folder: Path) -> str:
    """The class of a folder's model; empty where it does not say."""
    try:
        document = json.loads((folder / _CONFIG).read_bytes())
    except (OSError, ValueError):
        return ""
    names = document.get("architectures") if isinstance(document, dict) else None
    return str(names[0]) if names else ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _of_torchvision(name: str) -> Network:
    from torchvision.models import get_model, get_model_weights, list_models

    if name not in list_models():
        raise ConfigError(f"torchvision:{name}: torchvision has no such model; {nearest(name, list_models())}")
    weights = get_model_weights(name).DEFAULT
    return image_network(get_model(name, weights=weights), weights.transforms(), weights.meta.get("categories"))


def _of_timm(name: str) -> Network:
    import timm

    known = timm.list_pretrained()
    if name not in known and name not in timm.list_models():
        raise ConfigError(f"timm:{name}: timm has no such model; {nearest(name, known)}")
    model = timm.create_model(name, pretrained=True)
    make = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    subset = timm.data.infer_imagenet_subset(model)
    names = timm.data.ImageNetInfo(subset).label_descriptions() if subset else None
    return image_network(model, make, names)


def _of_transformers(folder: Path) -> Network:
    import torch
    from transformers import (
        AutoFeatureExtractor,
        AutoImageProcessor,
        AutoModelForAudioClassification,
        AutoModelForImageClassification,
    )

    images = _architecture(folder).endswith(_IMAGES)
    auto = AutoModelForImageClassification if images else AutoModelForAudioClassification
    model = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    classes = [model.config.id2label[number] for number in range(model.config.num_labels)]
    if images:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        return image_network(
            _logits_of(model), lambda image: processor(image, return_tensors="pt")["pixel_values"][0], classes
        )
    extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    return sound_network(_logits_of(model), extractor, classes, folder / _PREPROCESSOR)


def _logits_of(model: nn.Module) -> nn.Module:
    """The model, which returns its logits alone."""
    from torch import nn

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.model(inputs).logits

    return Logits()
