"""Image and sound classifiers that others trained: folders of transformers, names of torchvision and timm."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile
from transformers import (
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from orchestration.store.artifacts import Store, open_store
from tests.workflows.networks.places import WORDS, done, write_workflow
from tests.workflows.prediction.conftest import Finished
from workflows.errors import ConfigError
from workflows.inputs import pretrained
from workflows.inputs.contents import Sound
from workflows.inputs.network_sources import is_network, open_network
from workflows.methods.inputs.states import read_column

CLASSES = ["red", "green", "blue", "grey"]
RATE = 16_000


def save_images(folder: Path) -> None:
    for split, count in (("train", 5), ("test", 3)):
        for number, label in enumerate(WORDS):
            (place := folder / split / label).mkdir(parents=True)
            for n in range(count):
                pixels = np.random.default_rng(100 * number + n).integers(0, 40, (12, 12, 3))
                pixels[..., number] += 200
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{n}.png")


def save_sounds(folder: Path) -> None:
    for split, count in (("train", 5), ("test", 3)):
        for number, label in enumerate(WORDS):
            (place := folder / split / label).mkdir(parents=True)
            for n in range(count):
                times = np.arange(1400 + 100 * n) / RATE  # shorter than the example and longer
                wavfile.write(
                    place / f"{n}.wav", RATE, np.sin(2 * np.pi * 400 * (number + 1) * times).astype("float32")
                )


def save_vit(folder: Path) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(image_size=8, patch_size=4, id2label=dict(enumerate(CLASSES)), **small)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(folder)


def save_wav2vec2(folder: Path) -> None:
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 6}
    config = Wav2Vec2Config(id2label=dict(enumerate(CLASSES)), **small, **convolutions, **positions)
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(max_length=1600).save_pretrained(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize(
    ("kind", "field", "save_rows", "save_model"),
    [("images", "image", save_images, save_vit), ("sounds", "sound", save_sounds, save_wav2vec2)],
)
def test_a_folder_of_transformers_is_compared_and_labels_files(
    tmp_path: Path, store: Store, kind: str, field: str, save_rows, save_model
) -> None:
    save_rows(tmp_path)
    save_model(tmp_path / "model")
    source = {"train": "train", "test": "test", "columns": {field: "file"}}
    methods = ["zero-shot", "affinity-centred", "semantic-prior", "linear-probe"]
    assert done(write_workflow(tmp_path, kind, source, methods=methods, models=["model"]), store).failures == []
    run = Finished(tmp_path, store)
    scores = read_column(run.choose(method="zero-shot").fit, "scores")
    files = sorted((tmp_path / "test").glob("*/*"))
    np.testing.assert_allclose(scores, [logits_of(kind, tmp_path / "model", file) for file in files], atol=1e-4)
    stored = read_column(run.choose(method="semantic-prior").fit, "prediction").tolist()
    assert run.predict(tmp_path / "test", method="semantic-prior").numbers.tolist() == stored


def logits_of(kind: str, folder: Path, file: Path) -> np.ndarray:
    """Of the labels' classes, by transformers alone."""
    rows = [CLASSES.index(word) for word in WORDS.values()]
    with torch.inference_mode():
        if kind == "images":
            given = ViTImageProcessor.from_pretrained(folder)(np.array(Image.open(file)), return_tensors="pt")
            return ViTForImageClassification.from_pretrained(folder)(**given).logits[0, rows].numpy()
        _, samples = wavfile.read(file)
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
        fixed = {"max_length": 1600, "padding": "max_length", "truncation": True}
        given = extractor(samples, sampling_rate=RATE, return_tensors="pt", **fixed)["input_values"]
        return Wav2Vec2ForSequenceClassification.from_pretrained(folder)(given).logits[0, rows].numpy()


def test_a_sound_is_read_at_the_models_rate_and_as_one_channel(tmp_path: Path) -> None:
    save_wav2vec2(tmp_path)
    network = open_network(str(tmp_path), tmp_path)
    times = np.arange(800, dtype=np.float32) / 8_000
    slow = np.sin(2 * np.pi * 440 * times)
    found = network.input_of({"sound": Sound(8_000, np.stack([slow, slow], axis=1)), "speaker": "one"}, "row 1")
    fast = np.sin(2 * np.pi * 440 * np.arange(1600) / RATE)
    expected = Wav2Vec2FeatureExtractor()(fast, sampling_rate=RATE, return_tensors="np")["input_values"][0]
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=0.02)


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_wav2vec2(sounds := tmp_path / "sounds")
    Wav2Vec2FeatureExtractor().save_pretrained(sounds)
    with pytest.raises(
        ConfigError, match=r"sounds: takes sounds of any length.*set max_length, in samples, in its prep"
    ):
        open_network("sounds", tmp_path)
    save_vit(images := tmp_path / "images")
    network = open_network("images", tmp_path)
    with pytest.raises(
        ConfigError, match=r"images: read\(\), row 7: .* 0 of the fields text, rate hold an image; expec"
    ):
        network.input_of({"text": "no image", "rate": 1.0}, "row 7")
    (images / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ConfigError, match="images: the model cannot be loaded: SafetensorError: "):
        open_network("images", tmp_path)
    monkeypatch.setattr(pretrained, "version_of", lambda library: None)
    with pytest.raises(ConfigError, match="timm:resnet18: timm is not installed; pip install timm"):
        open_network("timm:resnet18", tmp_path)
    assert not is_network("reference", tmp_path)


def test_a_model_of_torchvision_is_read_by_its_weights_own_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what of torchvision is used: its wheels for one device alone cannot be installed beside torch for another."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))

    class Weights:
        def __init__(self) -> None:
            self.meta = {"categories": ["crane", "crane", "tench"]}

        def transforms(self):
            return lambda image: torch.tensor(np.array(image.resize((2, 2)))).permute(2, 0, 1) / 255

    models = ModuleType("torchvision.models")
    models.list_models = lambda: ["small"]  # type: ignore[attr-defined]
    models.get_model_weights = lambda name: SimpleNamespace(DEFAULT=Weights())  # type: ignore[attr-defined]
    models.get_model = lambda name, weights: module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(pretrained, "version_of", lambda library: "1.0")
    network = open_network("torchvision:small", tmp_path)
    assert (network.source.title, network.classes) == ("small", ["crane", "crane (2)", "tench"])
    white = np.full((5, 7), 255, np.uint8)  # grey
    assert torch.equal(network.input_of({"image": white}, "row 1"), torch.ones(3, 2, 2))
    with pytest.raises(ConfigError, match="torchvision:smal: torchvision has no such model; did you mean 'small'"):
        open_network("torchvision:smal", tmp_path)
