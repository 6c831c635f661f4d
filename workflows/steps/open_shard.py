"""A shard under way: its batches' states, saved now and then, so that an interruption costs seconds and no shard.

What is saved lies in the step's scratch folder: of this step's key alone. Time decides when a file is written, never
what the shard comes to hold: the batches are the same ones, and states that were computed with other numerics (another
device, another size of batches) are left aside. So a shard that was interrupted has the bytes of one that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from orchestration.store.files import stage
from vocabsem_core.errors import InputError
from vocabsem_core.features.encoder import Encoded
from vocabsem_core.numerics.checkpoint import below, load_state, save_state
from workflows.steps.measures import largest

SAVE_SECONDS = 30.0  # of work, between files: what the death of a process costs at most, with one batch


class OpenShard:
    """What there is of a shard.

    Args:
        folder: of the files, which need not exist.
        numerics: what decides the last digits of states; those of other numerics are removed.

    Attributes:
        known: what earlier attempts left, from the first batch on.
        seconds, peaks: what it took them.
    """

    def __init__(self, folder: Path, numerics: Mapping[str, Any]) -> None:
        self._folder, self._numerics = folder, json.dumps(numerics, sort_keys=True)
        self.known: list[Encoded] = []
        self.seconds = 0.0
        self.peaks: dict[str, float] = {}
        self._load()
        self._saved = sum(len(one.rows) for one in self.known)
        self._waiting: list[Encoded] = []
        self._began = self._at = time.perf_counter()

    def _load(self) -> None:
        """The files that follow one another from row 0 on; the rest, which another attempt left, is removed."""
        files = {path: _span(path) for path in self._folder.glob("[!.]*.safetensors")}
        end = 0
        while found := [path for path, (start, _) in files.items() if start == end]:
            path = max(found, key=lambda path: files[path])
            if not self._read(path):
                break
            end = files.pop(path)[1]
        for path in files:
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> bool:
        try:
            tensors, metadata = load_state(path)
        except InputError:  # not whole
            return False
        if metadata.get("numerics") != self._numerics:
            return False
        took = json.loads(metadata["took"])
        self.seconds, self.peaks = took["seconds"], largest(self.peaks, took["peaks"])
        self.known.append(Encoded(tensors["rows"].tolist(), below(tensors, "states")))
        return True

    @property
    def rows(self) -> int:
        """How many rows are done."""
        return self._saved + sum(len(one.rows) for one in self._waiting)

    def add(self, batch: Encoded) -> None:
        """One batch more; it is saved with the next file."""
        self._waiting.append(batch)
        if time.perf_counter() - self._at >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the batches that are not in a file yet."""
        if not self._waiting:
            return
        from vocabsem_core.numerics.memory import peak_bytes

        rows = [row for batch in self._waiting for row in batch.rows]
        layers = self._waiting[0].states
        tensors = {f"states/{name}": torch.cat([batch.states[name] for batch in self._waiting]) for name in layers}
        tensors["rows"] = torch.tensor(rows)
        took = {"seconds": self.seconds + time.perf_counter() - self._began, "peaks": peak_bytes()}
        metadata = {"numerics": self._numerics, "took": json.dumps(took)}
        name = f"{self._saved:09d}-{self._saved + len(rows):09d}.safetensors"
        with suppress(OSError, InputError):  # a full disk is for the shard's own file to tell
            self._folder.mkdir(parents=True, exist_ok=True)
            staged = stage(self._folder, name, lambda path: save_state(path, tensors, metadata))
            os.replace(staged, self._folder / name)
            self._saved, self._waiting = self._saved + len(rows), []
        self._at = time.perf_counter()

    def close(self) -> None:
        """The shard is committed."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _span(path: Path) -> tuple[int, int]:
    """From which row of the batches' order to which."""
    start, _, end = path.stem.partition("-")
    return int(start), int(end)
