"""Rows that stay in their files, and how training rows are divided."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from orchestration.graph import Step
from orchestration.store.arrow import table_of
from orchestration.store.artifacts import Artifact, open_store
from vocabsem_core.calibration.modules import Labelled
from vocabsem_core.semantics.basis import semantic_basis
from vocabsem_core.semantics.centring import States
from workflows.errors import ConfigError
from workflows.methods.inputs.split import split_rows
from workflows.methods.inputs.states import StoredRows, TaskFeatures

WIDTH = 3


def parts(*sizes: int, dtype: type = np.float16) -> list[np.ndarray]:
    """Files of these lengths; a row's first number is its place in all of them."""
    rows = np.arange(sum(sizes))[:, None] + np.linspace(0, 0.5, WIDTH)
    return np.split(rows.astype(dtype), np.cumsum(sizes)[:-1])


@examples(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(sum),
    columns=st.integers(1, 3),
    data=st.data(),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_stored_rows_are_those_of_the_files_in_one_piece(
    sizes: list[int], columns: int, data: st.DataObject, dtype: type
) -> None:
    files = [[part + column for column in range(columns)] for part in parts(*sizes, dtype=dtype)]
    numbers = st.integers(0, sum(sizes) - 1)
    chosen = np.array(data.draw(st.lists(numbers, min_size=1, max_size=12)))
    stored = StoredRows(files, chosen)
    wanted = torch.tensor(data.draw(st.lists(st.integers(0, len(chosen) - 1), max_size=12)), dtype=torch.int64)
    whole = np.concatenate([np.concatenate(of_file, axis=1) for of_file in files])
    expected = torch.from_numpy(whole[chosen].astype(np.float32))
    assert stored.shape == (len(chosen), WIDTH * columns)
    assert torch.equal(stored[wanted], expected[wanted])


def test_stored_rows_come_in_any_shape_as_float32() -> None:
    stored = StoredRows([[part] for part in parts(4, 0, 3)], np.array([6, 0, 5, 3]))
    found = stored[torch.tensor([[0, 1, 1], [3, 2, 0]])]
    assert (found.shape, found.dtype) == ((2, 3, WIDTH), torch.float32)
    assert found[..., 0].tolist() == [[6, 0, 0], [3, 5, 6]]
    assert stored.dtype == torch.float32
    assert isinstance(stored, States)


def test_stored_rows_do_not_change_the_files_and_are_not_theirs() -> None:
    files = parts(3, 2, dtype=np.float32)
    for file in files:
        file.flags.writeable = False  # as mapped files are
    stored = StoredRows([[file] for file in files], np.arange(5))
    stored[torch.arange(5)].zero_()
    assert stored[torch.arange(5)][:, 0].tolist() == [0, 1, 2, 3, 4]


def artifact(folder: Path, name: str, *tables: dict[str, np.ndarray]) -> Artifact:
    store, start = open_store(folder), 0
    step = Step(name, name, 1, "nowhere:nothing")
    writer = store.writer(step)
    writer.begin()
    for index, columns in enumerate(tables):
        count = len(next(iter(columns.values())))
        writer.write_shard(index, table_of(range(start, start + count), columns))
        start += count
    writer.commit({})
    found = store.find(step)
    assert found is not None
    return found


def materials(folder: Path, labels: list[int], **changes: Any) -> TaskFeatures:
    """States in three files; a row's state names its place, its hash turns the order round."""
    count = len(labels)
    (states,) = parts(count)
    hashes = np.arange(count)[::-1].astype(np.int64)
    cuts = [count // 4, count // 2]
    shards = [
        {"head": part, "row_hash": own}
        for part, own in zip(np.split(states, cuts), np.split(hashes, cuts), strict=True)
    ]
    inputs = {
        "train": artifact(folder, "encode", *shards),
        "train_labels": artifact(folder, "labels", {"label": np.array(labels, dtype=np.int32)}),
    }
    return TaskFeatures(inputs, "head", ["no", "yes"], "full", 0, **changes)


def places(rows: Labelled) -> list[int]:
    return rows.states[torch.arange(len(rows.labels))][:, 0].int().tolist()


def test_rows_left_in_their_files_are_those_that_are_loaded(tmp_path: Path) -> None:
    found = materials(tmp_path, [place % 2 for place in range(40)])
    for stored, loaded in ((found.stored_train, found.train), (found.stored_validation, found.validation)):
        assert isinstance(stored.states, StoredRows)
        assert torch.equal(stored.states[torch.arange(len(stored.labels))], loaded.states)
        assert torch.equal(stored.labels, loaded.labels)
        assert [place % 2 for place in places(stored)] == stored.labels.tolist()


def test_training_and_validation_rows_are_a_fifth_of_each_class_and_the_rest(tmp_path: Path) -> None:
    found = materials(tmp_path, [0] * 30 + [1] * 10)
    train, held = places(found.stored_train), places(found.stored_validation)
    assert sorted(train + held) == list(range(40))
    assert held == [24, 25, 26, 27, 28, 29, 38, 39]  # of the lowest hashes
    assert found.stored_validation.labels.tolist() == [0] * 6 + [1] * 2


def test_the_fold_says_which_fifth_is_held_out(tmp_path: Path) -> None:
    found = [materials(tmp_path, [0] * 30 + [1] * 10, fold=fold) for fold in range(5)]
    held = [places(one.stored_validation) for one in found]
    assert held[0] == places(materials(tmp_path, [0] * 30 + [1] * 10).stored_validation)
    assert held[1] == [18, 19, 20, 21, 22, 23, 36, 37]  # hashes count down
    assert sorted(chain.from_iterable(held)) == list(range(40))
    for one, rows in zip(found, held, strict=True):
        assert sorted(rows + places(one.stored_train)) == list(range(40))


def test_work_is_done_on_the_processor_unless_another_device_is_named(tmp_path: Path) -> None:
    assert materials(tmp_path, [0, 1]).device == "cpu"
    assert materials(tmp_path, [0, 1], device="cuda").device == "cuda"


def folds(count: int, other: int = 3) -> list[tuple[list[int], list[int]]]:
    """Rows of the first of two classes, in each fold: those kept and those held out."""
    labels = np.array([0] * count + [1] * other)
    hashes = np.random.default_rng(count).permutation(count + other)
    found = [split_rows(labels, hashes, 2, "full", 0, fold) for fold in range(5)]
    first = [[[int(row) for row in part if row < count] for part in both] for both in found]
    return [(kept, held) for kept, held in first]


@pytest.mark.parametrize("count", range(5, 24))
def test_the_folds_of_a_class_are_disjoint_and_cover_it(count: int) -> None:
    held = [rows for _, rows in folds(count)]
    assert sorted(chain.from_iterable(held)) == list(range(count))


@given(count=st.integers(2, 60))
def test_a_fold_holds_out_a_fifth_and_keeps_the_rest(count: int) -> None:
    for fold, (kept, held) in enumerate(folds(count)):
        assert sorted([*kept, *held]) == list(range(count))
        assert len(kept) >= 1
        assert abs(len(held) - max(1, round(count / 5))) <= (fold > 0)


@given(count=st.integers(2, 60))
def test_no_fold_holds_out_a_row_of_the_first(count: int) -> None:
    (_, first), *others = folds(count)
    assert not set(first) & {row for _, held in others for row in held}


def test_a_class_of_two_rows_has_one_in_each_part_whatever_the_fold() -> None:
    found = folds(2)
    assert {(len(kept), len(held)) for kept, held in found} == {(1, 1)}
    assert len({held[0] for _, held in found[1:]} | {found[0][1][0]}) == 2


@examples(max_examples=30)
@given(count=st.integers(2, 40), fold=st.integers(0, 4), size=st.integers(2, 20), seed=st.integers(0, 20))
def test_a_fold_divides_the_subsample_that_the_seed_draws(count: int, fold: int, size: int, seed: int) -> None:
    labels, hashes = np.zeros(count, dtype=int), np.arange(count)
    first = np.concatenate(split_rows(labels, hashes, 1, size, seed))
    kept, held = split_rows(labels, hashes, 1, size, seed, fold)
    assert sorted([*kept, *held]) == sorted(first)
    assert len(first) == min(count, size)


def test_a_class_of_one_row_is_trained_on_and_has_no_validation_row(tmp_path: Path) -> None:
    found = materials(tmp_path, [0] * 9 + [1])
    assert found.stored_train.labels.tolist().count(1) == 1
    assert found.stored_validation.labels.tolist().count(1) == 0


def test_a_class_without_a_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="label 'yes' has no training row"):
        _ = materials(tmp_path, [0] * 9).stored_train


def test_of_one_row_a_class_none_is_held_out(tmp_path: Path) -> None:
    found = replace(materials(tmp_path, [place % 2 for place in range(40)]), train_size=1)
    assert sorted(found.stored_train.labels.tolist()) == [0, 1]
    assert places(found.stored_validation) == places(found.stored_train)
    assert found.labelled_rows == 2


@pytest.mark.parametrize(("size", "count"), [("full", 40), (4, 8)])
def test_a_method_that_chooses_nothing_learns_from_all_rows(tmp_path: Path, size: Any, count: int) -> None:
    found = replace(materials(tmp_path, [place % 2 for place in range(40)]), train_size=size)
    every = replace(found, hold_out=False)
    assert len(every.stored_train.labels) == count == found.labelled_rows == every.labelled_rows
    assert set(places(every.stored_train)) == {*places(found.stored_train), *places(found.stored_validation)}


def test_the_mean_of_unlabelled_rows_reads_no_label(tmp_path: Path) -> None:
    """Whatever the labels, and where there are none, and of all rows whatever the training size."""
    labels = [place % 2 for place in range(40)]
    found = materials(tmp_path / "as they are", labels)
    permuted = replace(materials(tmp_path / "turned round", labels[::-1]), train_size=2)
    without = replace(found, inputs={"train": found.inputs["train"]})
    whole = found.unlabelled[torch.arange(40)]
    for one in (found, permuted, without):
        assert torch.equal(one.centre("training"), whole.double().mean(dim=0).float())
        assert torch.equal(one.moments[1], whole.double().std(dim=0, correction=0).float().clamp_min(1e-6))
    assert found.centre("none").tolist() == [0] * WIDTH


def test_unrelated_rows_are_basis_rows_of_other_tokens_and_differ_by_seed(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)
    head = artifact(tmp_path, "head", {"weight": weight[:15]}, {"weight": weight[15:]})
    pseudoinverse = np.linalg.pinv(weight.astype(np.float64)).T

    def drawn(seed: int) -> list[int]:
        found = replace(materials(tmp_path, [0, 1]), inputs={"head": head}, seed=seed)
        vars(found).update(tokens=[[3, 5], [16]], spectrum=semantic_basis([torch.from_numpy(weight)]))
        rows = found.unrelated_rows(0.0).numpy()
        nearest = [int(np.abs(pseudoinverse - row).max(axis=1).argmin()) for row in rows]
        np.testing.assert_allclose(rows, pseudoinverse[nearest], atol=1e-5)
        return nearest

    by_seed = [drawn(seed) for seed in range(8)]
    assert by_seed[3] == drawn(3)
    assert len({tuple(tokens) for tokens in by_seed}) == 8
    for tokens in by_seed:
        assert len(set(tokens)) == 2
        assert not set(tokens) & {3, 5, 16}
