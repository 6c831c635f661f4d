"""The short way from a model and texts, against the long way and independent oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests import tiny
from vocabsem_core.calibration.modules import CalibrationSettings
from vocabsem_core.errors import InputError
from vocabsem_core.features.encoder import Encoder
from vocabsem_core.functional import basis_of, calibrate, encode_texts, label_basis, probe

TEMPLATE = "review: {text}\n sentiment:"
WORDS = {"bad": "negative", "good": "positive"}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.gpt2()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tokenizer()


def test_states_are_those_of_the_prompts_last_token_at_every_layer(model: Any, tokenizer: Any) -> None:
    texts = ["a fine film", "a dull film, cold and long"]
    states = encode_texts(model, tokenizer, texts, TEMPLATE, ["layer_01", "head"])
    with torch.no_grad():
        for row, text in enumerate(texts):
            ids = tokenizer(TEMPLATE.format(text=text), return_tensors="pt")["input_ids"]
            hidden = model(ids, output_hidden_states=True).hidden_states
            for layer, place in (("layer_01", 1), ("head", 2)):
                torch.testing.assert_close(states[layer][row], hidden[place][0, -1], rtol=1e-4, atol=1e-5)


def test_a_text_that_is_too_long_loses_its_left_end(model: Any, tokenizer: Any) -> None:
    window, text = 128, "a fine film " * 100
    (states,) = encode_texts(model, tokenizer, [text], TEMPLATE)["head"]
    ids = tokenizer(TEMPLATE.format(text=text))["input_ids"]
    # The text's first token begins with the template's space, and stays.
    start = 1 + len(tokenizer("review:")["input_ids"])
    kept = ids[:start] + ids[start + len(ids) - window :]
    torch.testing.assert_close(states, Encoder(model).encode([kept])["head"][0], rtol=1e-4, atol=1e-5)


def test_a_masked_model_is_read_at_its_mask() -> None:
    model, tokenizer = tiny.bert(), tiny.masked_tokenizer()
    states = encode_texts(model, tokenizer, ["a fine film"], "review: {text} {mask}")["head"]
    assert states.shape == (1, tiny.WIDTH)
    with pytest.raises(InputError, match="has no layer 'layer_09'"):
        encode_texts(model, tokenizer, ["a fine film"], "review: {text} {mask}", ["layer_09"])


def test_basis_rows_are_those_of_the_pseudoinverse(model: Any, tokenizer: Any) -> None:
    head = model.get_output_embeddings().weight.detach().numpy()[: 1 + max(tokenizer.get_vocab().values())]
    expected = np.linalg.pinv(head.astype(np.float64)).T
    whole = basis_of(model, tokenizer)
    np.testing.assert_allclose(whole.rows(torch.from_numpy(head)), expected, rtol=1e-3, atol=1e-4)
    prompt = TEMPLATE.format(text="text")
    tokens = [
        tokenizer(f"{prompt} {word}")["input_ids"][len(tokenizer(prompt)["input_ids"])] for word in WORDS.values()
    ]
    rows = label_basis(model, tokenizer, WORDS, TEMPLATE, "first")
    np.testing.assert_allclose(rows, expected[tokens], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(label_basis(model, tokenizer, WORDS, TEMPLATE, "first", whole), rows)


@pytest.fixture(scope="module")
def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, well apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 2
    return torch.randn(80, 8, generator=generator) + 3 * labels[:, None], labels


def test_a_calibrator_learns_and_is_the_same_for_the_same_seed(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, labels = clouds
    basis, settings = torch.eye(2, 8), CalibrationSettings(rank=4, epochs=60, learning_rate=0.03, patience=None)
    first, again = (calibrate(states, labels, basis, settings, seed=1) for _ in range(2))
    assert (first.logits(states).argmax(dim=1) == labels).float().mean() > 0.95
    assert torch.equal(first.logits(states), again.logits(states))
    given = calibrate(states[:60], labels[:60], basis, settings, validation=(states[60:], labels[60:]))
    assert (given.logits(states).argmax(dim=1) == labels).float().mean() > 0.95


def test_a_class_with_one_row_cannot_be_held_out(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, labels = clouds
    with pytest.raises(InputError, match="class 1 has 1 training rows; at least two are needed"):
        calibrate(states[:3], torch.tensor([0, 0, 1]), torch.eye(2, 8))
    with pytest.raises(InputError, match="loss is not finite"):
        calibrate(states * torch.inf, labels, torch.eye(2, 8), CalibrationSettings(epochs=1))


def test_a_probe_is_scikit_learns(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, labels = clouds
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000)).fit(states, labels)
    odds = probe(states, labels, 0.5).logits(states).softmax(dim=1)
    np.testing.assert_allclose(odds, oracle.predict_proba(states), atol=1e-3)
