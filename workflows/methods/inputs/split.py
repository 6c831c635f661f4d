"""Which training rows a method learns from, and which are held out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from workflows.errors import ConfigError
from workflows.inputs.labels import rows_of, training_problems

_VALIDATION_SHARE = 0.2  # of the training rows of each class


def check_has_rows(labels: np.ndarray, names: Sequence[str]) -> None:
    """Raises ConfigError for a label without a row, and where no label has a second one, for validation."""
    if problems := training_problems(rows_of(names, labels.tolist())):
        raise ConfigError(problems[0])


def split_rows(
    labels: np.ndarray,
    hashes: np.ndarray,
    n_classes: int,
    train_size: int | Literal["full"],
    seed: int,
    fold: int = 0,
    hold_out: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for validation: of each class, a seeded subsample, of it a fifth (one row at least).

    A class with one row has none for validation. Where no class has one, or none is to be held out, the validation rows
    are the training rows. The order of rows in the file does not matter, but for rows of equal hash.
    """
    kept, held = [], []
    for number in range(n_classes):
        rows = np.flatnonzero(labels == number)
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        if train_size != "full" and len(rows) > train_size:
            rows = rows[np.sort(np.random.default_rng([seed, number]).permutation(len(rows))[:train_size])]
        mine = _held_out(rows, fold) if hold_out else rows[:0]
        held.append(mine)
        kept.append(np.setdiff1d(rows, mine))
    training, validation = np.sort(np.concatenate(kept)), np.sort(np.concatenate(held))
    return training, validation if len(validation) else training


def _held_out(rows: np.ndarray, fold: int) -> np.ndarray:
    """The rows of a class for validation: a fifth, or for folds 1 to 4 a fourth of the others, so that none is in two.

    Of the less than four others of a tiny class some are in several folds, but never in fold 0.
    """
    if len(rows) < 2:
        return rows[:0]
    size = max(1, round(_VALIDATION_SHARE * len(rows)))
    others = rows[size:]
    if fold == 0:
        return rows[:size]
    return np.array_split(others, 4)[fold - 1] if len(others) >= 4 else others[[(fold - 1) % len(others)]]
