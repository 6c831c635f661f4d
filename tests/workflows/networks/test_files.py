"""Images and sounds in folders by label, or named by a column: known by their content; what cannot be read is named."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from scipy.io import wavfile

from orchestration.errors import exit_code_of
from orchestration.graph import in_order
from orchestration.store.artifacts import Store, open_store
from tests.workflows.networks.places import WORDS, done, make_workspace, write_workflow
from tests.workflows.prediction.conftest import Finished
from workflows.api import open_run
from workflows.cli.validate import validate
from workflows.config.task import TaskConfig
from workflows.config.yaml_file import read_workflow, read_yaml
from workflows.errors import ConfigError
from workflows.inputs.catalog import Task
from workflows.inputs.contents import Sound, Unreadable, decoded
from workflows.inputs.tables import read_split, split_file, text_rows
from workflows.methods.inputs.states import read_column
from workflows.prediction.server import About, application
from workflows.prediction.service import Service
from workflows.registry import WORKFLOWS
from workflows.session import open_session

FOLDER = {"train": "train", "test": "test", "columns": {"image": "file"}}
FEW: dict[str, Any] = {"methods": ["zero-shot", "centroid"]}


def picture(number: int, seed: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 60, (4, 4))
    pixels[number] += 180
    return pixels.astype(np.uint8)


def save_images(folder: Path) -> None:
    """Of each label six images for training and three for the test."""
    for split, count in (("train", 6), ("test", 3)):
        for number, label in enumerate(WORDS):
            (place := folder / split / label).mkdir(parents=True)
            for n in range(count):
                Image.fromarray(picture(number, 100 * number + n + len(split))).save(place / f"{n}.png")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_images(make_workspace(tmp_path))
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def keys(file: Path, store: Store) -> dict[str, str]:
    session = open_session(read_workflow(file, WORKFLOWS), file, store, None, None)
    return {step.label: step.key for step in in_order(session.job.targets)}


def failure(file: Path, store: Store) -> str:
    """What the one failed step says."""
    (failed,) = {str(outcome.error) for label, outcome in done(file, store).failures if label.startswith("encode")}
    return failed


def test_a_folder_of_images_by_label_is_compared_predicted_and_served(base: Path, store: Store) -> None:
    assert done(write_workflow(base, "images", FOLDER, **FEW), store).failures == []
    inputs = open_run(store=store.root).states("net-images", "blobs", "test", "layer_00", form="numpy")
    paths = sorted((base / "test").glob("*/*.png"))
    expected = np.stack([np.array(Image.open(path)).ravel() / 255 for path in paths])
    np.testing.assert_allclose(inputs, expected, atol=1e-6)
    run = Finished(base, store)
    stored = read_column(run.choose(method="centroid").fit, "prediction").tolist()
    assert run.predict(base / "test", method="centroid").numbers.tolist() == stored
    flat = base / "new"
    flat.mkdir()
    for n, path in enumerate(paths):
        (flat / f"{n}.png").write_bytes(path.read_bytes())
    assert run.predict(flat, method="centroid").numbers.tolist() == stored
    service = Service(run.choose(method="centroid"), store)
    rows = [{"image": base64.b64encode(path.read_bytes()).decode()} for path in paths]
    assert [one["label"] for one in service.documents(rows)] == [list(WORDS)[number] for number in stored]
    with pytest.raises(ConfigError, match="row 1: field 'image': row 1: cannot identify image"):
        service.documents([{"image": base64.b64encode(b"no image").decode()}])


def test_the_same_files_named_by_a_column_have_the_same_keys_wherever_they_lie(base: Path, store: Store) -> None:
    first = keys(write_workflow(base, "images", FOLDER, **FEW), store)
    for split in ("train", "test"):
        rows = []
        for n, path in enumerate(sorted((base / split).glob("*/*.png"))):
            path.rename(base / f"{split}-{n}.png")
            rows.append({"path": f"{split}-{n}.png", "label": path.parent.name})
        (base / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    listed = {"train": "train.jsonl", "test": "test.jsonl", "columns": {"image": "path"}, "files": ["image"]}
    file = write_workflow(base, "images", listed, **FEW)
    assert keys(file, store) == first
    Image.fromarray(picture(0, 999)).save(base / "train-0.png")
    changed = keys(file, store)
    assert {label for label in first if first[label] != changed[label]} >= {
        "rows blobs train",
        "encode net-images blobs train",
    }
    assert first["encode net-images blobs test"] == changed["encode net-images blobs test"]
    (base / "train-3.png").unlink()
    (base / "train-4.png").unlink()
    with pytest.raises(ConfigError, match=r"train.jsonl: row 4: column 'path': no file .*train-3.png, nor of 1 more"):
        keys(file, store)


def test_an_unreadable_image_is_named_and_counted_and_left_out_only_where_the_file_says_so(
    base: Path, store: Store
) -> None:
    (base / "train" / "cold" / "2.png").write_bytes(b"\x89PNG broken")
    (base / "train" / "warm" / "0.png").write_bytes(b"")
    told = failure(write_workflow(base, "images", FOLDER, **FEW), store)
    assert "2 of 18 rows cannot be read; remove them, or set skip_unreadable: true" in told
    assert f"row 3: {base / 'train' / 'cold' / '2.png'}: cannot identify image file" in told
    assert "row 13: " in told
    summary = done(write_workflow(base, "images", {**FOLDER, "skip_unreadable": True}, **FEW), store)
    assert summary.failures == []
    assert "encode net-images blobs train: 2 of 18 rows cannot be read and are left out" in "\n".join(summary.notes)
    assert len(open_run(store=store.root).states("net-images", "blobs", "train")) == 16


def test_of_a_file_that_is_split_only_the_rows_of_a_side_count_as_left_out(base: Path, store: Store) -> None:
    (base / "train" / "cold" / "2.png").write_bytes(b"\x89PNG broken")
    both = {"train": "train", "columns": {"image": "file"}, "split": 0.3, "skip_unreadable": True}
    summary = done(write_workflow(base, "images", both, **FEW), store)
    assert summary.failures == []
    run = open_run(store=store.root)
    rows = {split: len(run.states("net-images", "blobs", split)) for split in ("train", "test")}
    assert sum(rows.values()) == 17
    notes = "\n".join(summary.notes)
    (told,) = (split for split in rows if f"blobs {split}: 1 of {rows[split] + 1} rows cannot be read" in notes)
    assert f"blobs {'test' if told == 'train' else 'train'}: " not in notes


def test_a_shard_may_be_left_out_whole_and_of_a_split_one_row_at_least_is_readable(
    base: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.steps.data.ROWS_PER_SHARD", 4)  # of the training rows 5 shards, of the test rows 3
    readable = {split: sorted((base / split).glob("*/*.png")) for split in ("train", "test")}
    for path in (*readable["train"][:4], readable["test"][8]):  # all of the first shard, and all of the last
        path.write_bytes(b"no image")
    skipping = write_workflow(base, "images", {**FOLDER, "skip_unreadable": True}, **FEW)
    summary = done(skipping, store)
    assert summary.failures == []
    for split, left in (("train", readable["train"][4:]), ("test", readable["test"][:8])):
        found = open_run(store=store.root).states("net-images", "blobs", split, "layer_00", form="numpy")
        expected = np.stack([np.array(Image.open(path)).ravel() / 255 for path in left])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert open_run(store=store.root).states("net-images", "blobs", split, "head").shape == (len(left), 16)
    assert "blobs test: 1 of 9 rows cannot be read and are left out" in "\n".join(summary.notes)
    for path in (base / "test").glob("*/*.png"):
        path.write_bytes(b"no image")
    told = failure(skipping, open_store(base / "another"))
    assert "9 of 9 rows cannot be read; at least one has to be readable; look at the files" in told
    assert "row 1: " in told
    assert "and 6 more" in told


def test_images_are_labelled_over_http(base: Path, store: Store) -> None:
    assert done(write_workflow(base, "images", FOLDER, **FEW), store).failures == []
    chosen = Finished(base, store).choose(method="centroid")
    paths = sorted((base / "test").glob("*/*.png"))
    rows = [{"image": base64.b64encode(path.read_bytes()).decode()} for path in paths]
    with TestClient(application(Service(chosen, store).documents, About.of(chosen.candidate))) as client:
        found = client.post("/predict", json={"rows": rows})
        assert found.status_code == 200, found.text
        stored = read_column(chosen.fit, "prediction").tolist()
        assert [said["label"] for said in found.json()["predictions"]] == [list(WORDS)[number] for number in stored]
        broken = client.post("/predict", json={"rows": [{"image": base64.b64encode(b"no image").decode()}]})
        assert broken.status_code == 422
        assert "field 'image'" in broken.json()["detail"]


def test_an_image_of_another_shape_is_named(base: Path, store: Store) -> None:
    Image.fromarray(np.zeros((5, 4), np.uint8)).save(base / "test" / "dull" / "1.png")
    told = failure(write_workflow(base, "images", FOLDER, **FEW), store)
    assert f"{base / 'net.py'}, line 23: <lambda>(), row 5: the input has shape (1, 5, 4)" in told
    assert "expected (1, 4, 4)" in told


def test_a_label_without_files_and_files_without_a_label_are_refused(base: Path, store: Store) -> None:
    file = write_workflow(base, "images", FOLDER, **FEW)
    (base / "train" / "empty").mkdir()
    (base / "train" / "empty" / ".hidden").touch()
    with pytest.raises(ConfigError, match=r"train/empty: has no files; add files, or remove the folder") as told:
        keys(file, store)
    assert exit_code_of(told.value) == 2
    assert any("has no files" in problem for problem in validate(file, None).problems)
    (base / "train" / "empty" / "one.png").touch()
    (base / "train" / "beside.png").touch()
    with pytest.raises(ConfigError, match=r"beside.png lies beside the folders of labels cold, dull, empty, warm"):
        keys(file, store)


def test_a_language_model_does_not_read_files(base: Path) -> None:
    task = read_yaml(write_workflow(base, "images", FOLDER).with_name("task.yaml"), TaskConfig)
    file = split_file(Task(task, base), "train")
    with pytest.raises(ConfigError, match="field 'image' is of files or arrays; a language model reads text"):
        text_rows(file, read_split(file, file.names).values)


def test_a_folder_of_sounds_goes_the_same_way(base: Path, store: Store) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for number, label in enumerate(WORDS):
            (place := base / "sounds" / split / label).mkdir(parents=True)
            for n in range(count):
                samples = np.sin(np.arange(8) * (number + 1) + n / 9) * 20000
                wavfile.write(place / f"{n}.wav", 8000, samples.astype(np.int16))
    source = {"train": "sounds/train", "test": "sounds/test", "columns": {"sound": "file"}}
    assert done(write_workflow(base, "sounds", source, **FEW), store).failures == []
    first = open_run(store=store.root).states("net-sounds", "blobs", "test", "layer_00", form="numpy")[0]
    np.testing.assert_allclose(first, np.sin(np.arange(8) * 2) * 20000 / 32768, atol=1e-4)


@pytest.mark.parametrize(("dtype", "level"), [(np.uint8, 128), (np.int16, 0), (np.int32, 0), (np.float32, 0)])
def test_wav_samples_are_between_minus_one_and_one(tmp_path: Path, dtype: Any, level: int) -> None:
    top = 1.0 if dtype is np.float32 else 2 ** (8 * dtype().itemsize - 1) - 1
    samples = (level + np.array([0, 0.5, -0.5]) * top).astype(dtype)
    wavfile.write(tmp_path / "one.wav", 8000, samples)
    found = decoded((tmp_path / "one.wav").read_bytes(), "one.wav")
    assert isinstance(found, Sound)
    assert found.rate == 8000
    np.testing.assert_allclose(found.samples, [0, 0.5, -0.5], atol=0.01)


def test_a_broken_sound_and_a_pickled_array_are_unreadable(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for data in (b"RIFF and no more", (tmp_path / "objects.npy").read_bytes()):
        with pytest.raises(Unreadable, match="one: "):
            decoded(data, "one")
