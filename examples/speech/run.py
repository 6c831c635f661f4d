"""Spoken digits of speakers that the network has not heard: trains a CNN on three speakers, then compares methods.

    python examples/speech/run.py --data-dir DATA    # DATA/fsdd/{train,test}.jsonl: path, label, speaker
    python examples/speech/run.py                    # the same on generated sounds, to try it out

It is `vocabsem run examples/speech/compare.yaml` once the rows and the weights are there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.io import wavfile
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from speech.network import CLASSES, RATE, WEIGHTS, architecture, read  # noqa: E402

from workflows.inputs.contents import decoded  # noqa: E402

UNHEARD = ("lucas", "theo", "yweweler")
GENERATED = ("ada", "bea", "cem", *UNHEARD)
Row = dict[str, Any]  # path, label, speaker


def main() -> None:
    """Write the rows, train the network, compare the methods."""
    from workflows.cli.app import app

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with fsdd/train.jsonl and test.jsonl")
    parser.add_argument("--store", default=str(HERE / "store"), help="folder of the results")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    folder = HERE / "data" / "generated" if asked.data_dir is None else asked.data_dir.absolute() / "fsdd"
    if asked.data_dir is None:
        generate(folder)
    heard = prepare(folder, HERE / "data")
    save_file(trained(heard).state_dict(), WEIGHTS)
    app(["run", str(HERE / "compare.yaml"), "--store", asked.store])


def prepare(folder: Path, into: Path) -> list[Row]:
    """Write train.jsonl and test.jsonl of the speakers not heard; returns the rows of the others."""
    into.mkdir(exist_ok=True)
    heard: list[Row] = []
    for split in ("train", "test"):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [{**row, "path": str(folder / row["path"])} for row in map(json.loads, lines)]
        heard += [row for row in rows if row["speaker"] not in UNHEARD]
        text = "".join(json.dumps(row) + "\n" for row in rows if row["speaker"] in UNHEARD)
        (into / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return heard


def trained(rows: Sequence[Row], epochs: int = 25) -> nn.Module:
    """The CNN, trained on recordings: AdamW, seeded order."""
    inputs = torch.stack([read({"sound": decoded(Path(row["path"]).read_bytes(), row["path"])}) for row in rows])
    classes = torch.tensor([CLASSES.index(row["label"]) for row in rows])
    module = architecture().train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for part in torch.randperm(len(rows), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(inputs[part]), classes[part]).backward()
            optimizer.step()
    return module.eval()


def generate(folder: Path, takes: int = 5) -> None:
    """Sounds in the place of speech: a digit is a pair of tones, a speaker shifts them, a take adds noise."""
    random = np.random.default_rng(0)
    (folder / "recordings").mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        rows = []
        for number, speaker in enumerate(GENERATED):
            for digit, label in enumerate(CLASSES):
                for take in range(takes):
                    name = f"recordings/{split}_{label}_{speaker}_{take}.wav"
                    samples = _tones(digit, 1 + 0.06 * number, random)
                    wavfile.write(folder / name, RATE, (samples * 20000).astype(np.int16))
                    rows.append({"path": name, "label": label, "speaker": speaker})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _tones(digit: int, shift: float, random: np.random.Generator) -> np.ndarray:
    time = np.arange(RATE // 2) / RATE
    first, second = 300 + 70 * digit, 900 + 120 * ((3 * digit) % 10)
    tones = np.sin(2 * np.pi * first * shift * time) + np.sin(2 * np.pi * second * shift * time * (1 + 0.2 * time))
    return 0.3 * tones * np.hanning(len(time)) + random.normal(0, 0.1, len(time))


if __name__ == "__main__":
    main()
