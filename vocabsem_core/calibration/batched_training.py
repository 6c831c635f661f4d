"""Training of calibrators, many side by side: settings that differ in numbers alone share one batched computation.

A lane is one calibrator under training. Its result does not depend on its neighbours: every random number comes from
the lane's own seed, and no arithmetic mixes lanes. A lane that is done leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vocabsem_core.calibration.batch import Batch, Lane
from vocabsem_core.calibration.modules import Calibration, CalibrationSettings, Labelled, untrained
from vocabsem_core.calibration.vocabulary import BLOCK, Vocabulary
from vocabsem_core.errors import InputError
from vocabsem_core.numerics.matmul import fast_float32
from vocabsem_core.numerics.ticks import part_of_more
from vocabsem_core.semantics.centring import States, moments

_COPIES = 8  # of a lane's weights: themselves, two moments, the best, the gradient in parts and whole, and to spare

Watch = Callable[[int, Mapping[int, float]], Collection[int]]  # (epoch, lane -> validation loss) -> lanes to end


def structure(settings: CalibrationSettings) -> tuple[Any, ...]:
    """What lanes of a pack must have in common."""
    s = settings
    rank = s.rank if s.module == "residual" else 0
    return (s.module, rank, s.loss, s.similarity, s.learn_temperature, s.learn_targets, s.batch_size)


def lane_bytes(settings: CalibrationSettings, width: int, targets: int, read: int | None = None) -> int:
    """About how many bytes a lane takes in a pack: weights, AdamW's moments, activations.

    Args:
        settings: of the lane.
        width: d, dimensions of the states that are moved.
        targets: basis rows that the states are compared with; of many there is a block in memory at a time.
        read: dimensions of several layers side by side; None: `width`.
    """
    zeros, basis = torch.zeros(read or width), torch.zeros(targets if settings.learn_targets else 1, width)
    weights = sum(w.numel() for w in untrained(settings, zeros, zeros + 1, torch.Generator(), basis).values())
    moved = 8 * settings.rank if settings.module == "residual" else 12 * width
    return 4 * (_COPIES * weights + settings.batch_size * (moved + 2 * width + len(zeros) + 4 * min(targets, BLOCK)))


@fast_float32()
def fit_pack(
    train: Labelled[States],
    validation: Labelled[States],
    basis: Float[Tensor, "c d"],
    lanes: Sequence[Lane],
    vocabulary: Vocabulary | None = None,
    watch: Watch | None = None,
) -> list[Calibration | InputError]:
    """Train calibrators on states towards their labels' basis rows; the language model is not touched.

    Args:
        basis: the row of each class; training runs on its device. Where states are of several layers side by side, the
            first d dimensions are those that are moved.
        lanes: what to train; all of one `structure`.
        vocabulary: the other rows of the basis, for the loss over the whole vocabulary; not used by the other losses.
        watch: told every lane's validation loss after each epoch; the lanes it names end there.

    Returns an entry a lane: its calibrator, or an InputError that names its settings where a loss was not finite.
    Raises InputError for lanes of several structures, or where the loss needs a vocabulary and none is given.
    """
    if len({structure(lane.settings) for lane in lanes}) != 1:
        raise InputError(f"a pack of {len(lanes)} lanes of several structures; expected one")
    basis = basis.clone()  # autograd refuses tensors of inference mode
    batch = Batch(lanes, moments(train.states), basis, _compared_with(vocabulary, lanes[0].settings))
    kept, losses = batch.flat.clone(), batch.validation_losses(validation, basis)
    best = dict.fromkeys(range(len(lanes)), 0)  # lane -> the epoch whose weights are kept
    found: dict[int, Calibration | InputError] = {}
    epoch = 0
    while batch.numbers:
        epoch += 1
        most = max(lanes[number].settings.epochs for number in batch.numbers)
        batch.look_at_estimates(train)
        with part_of_more(epoch - 1, most, "epochs"):
            batch.train_epoch(train, basis)
        now = batch.validation_losses(validation, basis)
        dropped = watch(epoch, dict(zip(batch.numbers, now, strict=True))) if watch else ()
        staying = []
        for place, loss in enumerate(now):
            number, settings = batch.numbers[place], lanes[batch.numbers[place]].settings
            if not math.isfinite(loss):
                found[number] = InputError(
                    f"the loss is not finite after epoch {epoch} with {settings}; lower the learning rate"
                )
                continue
            if settings.patience is None or loss < losses[number]:
                kept[number], losses[number], best[number] = batch.flat[place], loss, epoch
            tired = settings.patience is not None and epoch - best[number] >= settings.patience
            if number not in dropped and not tired and epoch < settings.epochs:
                staying.append(place)
            else:
                found[number] = Calibration(batch.calibrator(kept[number]), losses[number], best[number], epoch)
        batch.keep(staying)
    return [found[number] for number in range(len(lanes))]


def _compared_with(vocabulary: Vocabulary | None, settings: CalibrationSettings) -> Vocabulary | None:
    """The rows that the loss compares with beside the classes' own; None: no others."""
    if settings.loss != "vocabulary":
        return None
    if vocabulary is None:
        raise InputError("loss `vocabulary` needs the whole basis; it was given the task's rows alone")
    return vocabulary if len(vocabulary.rows) else None
