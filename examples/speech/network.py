"""Spoken digits: log-mel features of a second of sound, and a small CNN on them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vocabsem import Network

WEIGHTS = Path(__file__).with_name("cnn.safetensors")  # `run.py` makes it
RATE, BANDS, WINDOW, STEP = 8000, 40, 256, 128  # samples a second; mel bands; samples
CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def cnn() -> Network:
    """The CNN with the weights that `run.py` has trained."""
    if not WEIGHTS.is_file():
        raise FileNotFoundError(f"no {WEIGHTS}; python examples/speech/run.py makes it")
    module = architecture()
    module.load_state_dict(load_file(WEIGHTS))
    return Network(module, read, torch.zeros(1, BANDS, RATE // STEP + 1), CLASSES, files=[WEIGHTS])


def architecture() -> nn.Sequential:
    """Three convolutions and a linear head; its initial weights are seeded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *_convolution(1, 8), *_convolution(8, 16), *_convolution(16, 32),
            nn.Flatten(), nn.Linear(32 * 5 * 7, 64), nn.ReLU(), nn.Linear(64, len(CLASSES)),
        )  # fmt: skip


def _convolution(given: int, made: int) -> list[nn.Module]:
    return [nn.Conv2d(given, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU(), nn.MaxPool2d(2)]


def read(row: dict[str, Any]) -> Tensor:
    """A recording as the CNN takes it. Raises ValueError for another rate than 8 kHz."""
    sound = row["sound"]
    if sound.rate != RATE:
        raise ValueError(f"a recording of {sound.rate} samples a second; expected {RATE}")
    samples = torch.from_numpy(sound.samples)
    return log_mel(samples if samples.ndim == 1 else samples.mean(dim=1))


def log_mel(samples: Tensor) -> Tensor:
    """Log energies of mel bands of the first second, [1, bands, frames], of mean 0 and deviation 1."""
    padded = torch.zeros(RATE)
    padded[: min(RATE, len(samples))] = samples[:RATE]
    spectrum = torch.stft(padded, WINDOW, STEP, window=torch.hann_window(WINDOW), return_complex=True)
    energies = (mel_bands() @ spectrum.abs().square() + 1e-6).log()
    return ((energies - energies.mean()) / (energies.std() + 1e-6))[None]


def mel_bands() -> Tensor:
    """Triangles of equal width in mel (O'Shaughnessy 1987), [bands, frequencies]."""
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, BANDS + 2) / 2595) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return torch.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)).clamp_min(0)
