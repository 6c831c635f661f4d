"""Handwritten digits (scikit-learn's, 8 x 8 pixels): a small CNN, and the images it is adapted to.

The CNN learns from 500 upright, clean images. The others are rotated or noisy: 800 to learn from, 497 to test on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import rotate
from torch import nn

from vocabsem import Network

WEIGHTS = Path(__file__).with_name("cnn.safetensors")  # made by the first call
SOURCE, TRAIN = 500, 800  # images the CNN learns from, and those of the shifted training rows
DEGREES, NOISE = 40.0, 0.35  # of the rotation; standard deviation, of pixels between 0 and 1


def cnn() -> Network:
    """The CNN; the first call trains it (about 10 s) and keeps its weights beside this file."""
    module = architecture()
    if not WEIGHTS.is_file():
        images, labels = part("source")
        save(trained(module, images, labels), WEIGHTS)
    module.load_state_dict(load_file(WEIGHTS))
    return Network(module, read, torch.zeros(1, 8, 8), files=[WEIGHTS])


def architecture(classes: int = 10) -> nn.Sequential:
    """Two convolutions and a linear head; its initial weights are seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes),
        )  # fmt: skip


def trained(module: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int = 60) -> nn.Module:
    """Train a module on images [n, 8, 8] and class numbers [n]: AdamW, seeded order."""
    inputs, classes = torch.tensor(images).float()[:, None], torch.tensor(labels)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[rows]), classes[rows]).backward()
            optimizer.step()
    return module


def save(module: nn.Module, file: Path) -> None:
    """Write weights whole or not at all: workers may read them."""
    save_file(module.state_dict(), aside := file.with_suffix(f".{os.getpid()}"))
    aside.replace(file)


def read(row: dict[str, Any]) -> torch.Tensor:
    """An image as the CNN takes it."""
    return torch.tensor(row["image"]).float()[None]


def part(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, 8, 8], between 0 and 1, and class numbers [n] of `source`, `train` or `test`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    begin, end = {"source": (0, SOURCE), "train": (SOURCE, SOURCE + TRAIN), "test": (SOURCE + TRAIN, None)}[name]
    return digits.images[order][begin:end] / 16.0, digits.target[order][begin:end]


def rotated(name: str) -> Iterator[dict[str, Any]]:
    """Rows of images turned by 40 degrees."""
    for image, label in zip(*part(name), strict=True):
        turned = rotate(image, DEGREES, reshape=False, order=1)
        yield {"image": turned.astype(np.float32), "label": int(label)}


def noisy(name: str) -> Iterator[dict[str, Any]]:
    """Rows of images with noise on each pixel."""
    random = np.random.default_rng([1, *name.encode()])
    for image, label in zip(*part(name), strict=True):
        yield {"image": (image + random.normal(0, NOISE, image.shape)).astype(np.float32), "label": int(label)}


def rotated_train() -> Iterator[dict[str, Any]]:
    """Training rows."""
    return rotated("train")


def rotated_test() -> Iterator[dict[str, Any]]:
    """Test rows."""
    return rotated("test")


def noisy_train() -> Iterator[dict[str, Any]]:
    """Training rows."""
    return noisy("train")


def noisy_test() -> Iterator[dict[str, Any]]:
    """Test rows."""
    return noisy("test")
