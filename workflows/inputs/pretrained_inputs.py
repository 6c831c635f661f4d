"""How a pretrained network reads a row: the one image, or the one sound, among its fields."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.errors import ConfigError
from workflows.inputs.contents import Sound
from workflows.inputs.networks import Network

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn


@dataclass(frozen=True)
class _Reads:
    """Makes an input of the one image, or the one sound, among a row's fields."""

    what: str
    is_one: Callable[[Any], bool]
    make: Callable[[Any], Tensor]

    def __call__(self, row: Mapping[str, Any]) -> Tensor:
        found = [value for value in row.values() if self.is_one(value)]
        if len(found) != 1:
            fields = ", ".join(row)
            raise ValueError(f"{len(found)} of the fields {fields} hold {self.what}; expected one that does")
        return self.make(found[0])


def image_network(module: nn.Module, make: Callable[[Any], Tensor], classes: Sequence[str] | None) -> Network:
    """A network of images.

    Args:
        module: returns logits.
        make: makes an input of a PIL image, in RGB.
        classes: names of the head's rows; None: their numbers.
    """
    import numpy as np
    from PIL import Image

    def is_one(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3)

    def read(value: np.ndarray) -> Tensor:
        return make(Image.fromarray(value).convert("RGB"))

    example = read(np.zeros((64, 64, 3), np.uint8))
    return Network(module, _Reads("an image", is_one, read), example * 0, classes and _distinct(classes))


def _distinct(names: Sequence[str]) -> list[str]:
    """ImageNet has two classes called crane: the second one is "crane (2)"."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def sound_network(module: nn.Module, extractor: Any, classes: Sequence[str], settings: Path) -> Network:
    """A network of sounds.

    Args:
        module: returns logits.
        extractor: transformers' feature extractor, whose `settings` lie in that file.
        classes: names of the head's rows.

    Raises ConfigError where inputs are as long as their sounds and the file gives no max_length.
    """
    import numpy as np

    rate, most = extractor.sampling_rate, json.loads(settings.read_bytes()).get("max_length")
    fixed = {"max_length": most, "padding": "max_length", "truncation": True} if most is not None else {}

    def made(samples: np.ndarray) -> Tensor:
        given = extractor(samples, sampling_rate=rate, return_tensors="pt", **fixed)
        return next(value for value in given.values() if value.is_floating_point())[0]

    def read(sound: Sound) -> Tensor:
        return made(_resampled(sound, rate))

    examples = [made(np.zeros(seconds * rate, np.float32)) for seconds in (1, 2)]
    if examples[0].shape != examples[1].shape:
        raise ConfigError(
            f"{settings.parent}: takes sounds of any length, and here all inputs have one; set max_length, in samples, "
            f"in its {settings.name}: longer sounds are cut, shorter ones padded with silence"
        )
    return Network(
        module, _Reads("a sound", lambda value: isinstance(value, Sound), read), examples[0] * 0, _distinct(classes)
    )


def _resampled(sound: Sound, rate: int) -> np.ndarray:
    """One channel at the model's rate."""
    from scipy.signal import resample_poly

    samples = sound.samples if sound.samples.ndim == 1 else sound.samples.mean(axis=1)
    if sound.rate == rate:
        return samples
    shared = gcd(sound.rate, rate)
    return resample_poly(samples, rate // shared, sound.rate // shared).astype("float32")
