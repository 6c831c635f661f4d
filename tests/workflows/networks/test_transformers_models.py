"""Image and sound models of transformers, from folders as it saves them, go the way of any network."""

from __future__ import annotations

from pathlib import Path

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
from workflows.methods.inputs.states import read_column

NET = """
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, AutoImageProcessor
from transformers import AutoModelForAudioClassification, AutoModelForImageClassification

from vocabsem import Network

HERE = Path(__file__).parent


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(inputs).logits


def images():
    model = AutoModelForImageClassification.from_pretrained(HERE / "vit")
    processor = AutoImageProcessor.from_pretrained(HERE / "vit")
    size = processor.size
    return Network(
        Logits(model),
        read=lambda row: processor(row["image"], return_tensors="pt")["pixel_values"][0],
        example=torch.zeros(3, size["height"], size["width"]),
        classes=list(model.config.id2label.values()),
    )


def sounds():
    model = AutoModelForAudioClassification.from_pretrained(HERE / "wav2vec2")
    extractor = AutoFeatureExtractor.from_pretrained(HERE / "wav2vec2")
    return Network(
        Logits(model),
        read=lambda row: extractor(
            row["sound"].samples, sampling_rate=row["sound"].rate, return_tensors="pt", max_length=1600,
            padding="max_length", truncation=True,
        )["input_values"][0],
        example=torch.zeros(1600),
        classes=list(model.config.id2label.values()),
    )
"""
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
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize(
    ("kind", "field", "save_rows", "save_model", "folder"),
    [
        ("images", "image", save_images, save_vit, "vit"),
        ("sounds", "sound", save_sounds, save_wav2vec2, "wav2vec2"),
    ],
)
def test_a_folder_of_transformers_is_compared_and_labels_files(
    tmp_path: Path, store: Store, kind: str, field: str, save_rows, save_model, folder: str
) -> None:
    save_rows(tmp_path)
    save_model(tmp_path / folder)
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    source = {"train": "train", "test": "test", "columns": {field: "file"}}
    methods = ["zero-shot", "affinity-centred", "semantic-prior", "linear-probe"]
    assert done(write_workflow(tmp_path, kind, source, methods=methods), store).failures == []
    run = Finished(tmp_path, store)
    scores = read_column(run.choose(method="zero-shot").fit, "scores")
    files = sorted((tmp_path / "test").glob("*/*"))
    np.testing.assert_allclose(scores, [logits_of(kind, tmp_path / folder, file) for file in files], atol=1e-4)
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
