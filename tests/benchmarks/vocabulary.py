"""Calibrations over the whole vocabulary: ours against a plain loop of one after another, on the same cores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from tests.benchmarks.common import Case
from tests.benchmarks.sweep import configurations, with_values
from vocabsem_core.calibration.batch import Lane
from vocabsem_core.calibration.batched_training import fit_pack, lane_bytes
from vocabsem_core.calibration.modules import CalibrationSettings, Labelled, Weights, paper, untrained
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.features.checkpoints import head_place
from vocabsem_core.features.gguf import write_model
from vocabsem_core.semantics.basis import semantic_basis
from workflows.inputs.catalog import find_model
from workflows.inputs.gguf import gguf_file
from workflows.search.trials import side_by_side

MODEL = "smollm2-135m"
TRAIN, VALIDATION, CLASSES = 640, 160, 4
COUNT, EPOCHS = 6, 6
SETTINGS = CalibrationSettings(
    module="paper",
    loss="vocabulary",
    temperature=1.0,
    learn_temperature=False,
    dropout=0.0,
    batch_size=256,
    patience=None,
    epochs=EPOCHS,
)
SAME = 1e-3  # of losses


def cases(data_dir: Path | None = None, model: Path | None = None) -> Iterator[Case]:
    """Speed and losses, on random states and the bases of a model folder; without one, of a model of the catalog."""
    if model is not None:
        yield from search_cases(bases_of(model), SETTINGS)
        return
    with TemporaryDirectory() as folder:
        write_model(gguf_file(find_model(MODEL, Path())), Path(folder))
        bases = bases_of(Path(folder))
    yield from search_cases(bases, SETTINGS)


def bases_of(folder: Path) -> Tensor:
    """[v, d]"""
    place = head_place(folder)
    head = torch.cat(list(place.blocks(place.rows())))
    return semantic_basis([head]).rows(head).float()


def search_cases(bases: Tensor, settings: CalibrationSettings, count: int = COUNT) -> Iterator[Case]:
    """`count` configurations in packs, as a search has them, each pack beside the plain loops of its configurations."""
    train, validation = (rows_near(bases.shape[1], n, seed) for seed, n in enumerate((TRAIN, VALIDATION)))
    own = torch.arange(1, CLASSES + 1) * (len(bases) // (CLASSES + 1))  # the rows of the labels
    others = torch.ones(len(bases), dtype=torch.bool).index_fill_(0, own, False)
    lanes = [Lane(with_values(settings, {**one, "dropout": 0.0}), 0) for one in configurations(settings, count)]
    size = side_by_side(lane_bytes(settings, bases.shape[1], len(bases)), "cpu", 1)
    vocabulary, found, expected = Vocabulary(bases[others]), [], []
    ours = theirs = 0.0
    for pack in (lanes[start : start + size] for start in range(0, count, size)):
        begun = time.perf_counter()
        found += fit_pack(train, validation, bases[own], pack, vocabulary)
        between = time.perf_counter()
        expected += [plain_loop(train, validation, bases, own, lane) for lane in pack]
        ours, theirs = ours + between - begun, theirs + time.perf_counter() - between
    detail = (
        f"{count} configurations of calibration-paper over {len(bases):,} bases of width {bases.shape[1]}: ours "
        f"{ours:.1f} s, a plain torch loop {theirs:.1f} s, one pack of {size} and its plain loops after another; "
        f"{TRAIN} + {VALIDATION} rows, {settings.epochs} epochs, {torch.get_num_threads()} threads"
    )
    yield Case("vocabulary", "a search against a plain loop", theirs / ours, 4.0, detail)
    pairs = [
        (vocabulary_loss(one.weights, train, bases, own), vocabulary_loss(other, train, bases, own))
        for one, other in zip(found, expected, strict=True)
    ]
    apart = max(abs(one - other) for one, other in pairs)
    detail = f"largest difference {apart:.1e}; ours and theirs: " + ", ".join(f"{a:.4f} {b:.4f}" for a, b in pairs)
    yield Case("vocabulary", f"{SAME:g} against the difference of losses", SAME / apart, 1.0, detail)


def rows_near(width: int, count: int, seed: int) -> Labelled[Tensor]:
    """Random states around a centre for each class."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return Labelled(3 + centres[labels] + 2 * noise, labels)


def plain_loop(
    train: Labelled[Tensor], validation: Labelled[Tensor], bases: Tensor, own: Tensor, lane: Lane
) -> Weights:
    """Theirs: one calibrator, every logit made, by torch's own functions; in our order of rows, for equal losses."""
    settings, streams = lane.settings, [torch.Generator().manual_seed(3 * lane.seed + use) for use in range(2)]
    weights = untrained(settings, train.states.mean(dim=0), train.states.std(dim=0), streams[0], bases[own])
    trained = [w.requires_grad_() for name, w in weights.items() if name != "log_temperature"]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    unit = functional.normalize(bases, dim=1)
    for _ in range(settings.epochs):
        for rows in torch.randperm(len(train.labels), generator=streams[1]).split(settings.batch_size):
            optimizer.zero_grad()
            logits = functional.normalize(paper(train.states[rows], weights), dim=1) @ unit.T
            functional.cross_entropy(logits, own[train.labels[rows]]).backward()
            optimizer.step()
        with torch.no_grad():
            logits = functional.normalize(paper(validation.states, weights), dim=1) @ unit[own].T
            functional.cross_entropy(logits, validation.labels)
    return weights


@torch.no_grad()
def vocabulary_loss(weights: Weights, rows: Labelled[Tensor], bases: Tensor, own: Tensor) -> float:
    """Cross-entropy over all bases, exactly."""
    logits = functional.normalize(paper(rows.states, weights), dim=1) @ functional.normalize(bases, dim=1).T
    return float(functional.cross_entropy(logits, own[rows.labels]))
