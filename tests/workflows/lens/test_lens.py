"""`vocabsem lens`: what it shows is the model's own, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from orchestration.execution.scheduler import InlineEngine, run_plan
from orchestration.runs.plan import make_plan
from orchestration.runs.record import open_run
from orchestration.store.artifacts import open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from tests import tiny
from tests.workflows.films import films, write_films
from vocabsem_core.features.checkpoints import load_model, load_tokenizer
from workflows.cli.app import app
from workflows.config.layer_study import LayersConfig
from workflows.layers.workflow import LAYERS
from workflows.lens.page import page
from workflows.results.model import stored
from workflows.session import ORIGIN

TEXT = "a fine film"
STUDY = """
workflow: layers
models: [model]
tasks: [films.yaml]
bases: [head]
neighbours: [1]
steering: {rows: 0}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a task, and a store with a layer study."""
    folder = tmp_path_factory.mktemp("lens")
    tiny.save(folder / "model", tiny.gpt2())
    tiny.save(folder / "shared", tiny.albert())
    tiny.save(folder / "encdec", tiny.t5())
    tiny.save(folder / "masked", tiny.bert())
    write_films(folder, films(20), films(4))
    (folder / "pairs.yaml").write_text(
        json.dumps(
            {
                "name": "pairs",
                "source": {"train": "train.jsonl", "test": "test.jsonl", "columns": {"text": "text", "claim": "label"}},
                "template": "premise: {text}\nhypothesis: {claim}\nprediction:",
                "words": {"bad": "negative", "good": "positive"},
            }
        )
    )
    store = open_store(folder / "store")
    (folder / "layers.yaml").write_text(STUDY)
    config = LayersConfig.model_validate(yaml.safe_load(STUDY))
    study = LAYERS.job(config, folder, None, FingerprintCache(store.root / "facts.json"), store)
    run_plan(make_plan(study.targets, store), lambda: InlineEngine(store, lambda *_: None), lambda *_: None)
    record = open_run(store, study.targets, STUDY)
    record.write("results.json", stored(study.results(store, lambda *_: None)))
    record.write(ORIGIN, {"folder": str(folder), "data_dir": None})
    return folder


def lens(base: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["lens", *arguments, "--store", str(base / "store")], catch_exceptions=True)


def document(base: Path, *arguments: str) -> Any:
    found = lens(base, *arguments, "--json")
    assert found.exit_code == 0, found.output + str(found.exception)
    return json.loads(found.stdout)["texts"]


def test_words_are_the_models_own_at_the_head_and_behind_the_final_norm_before(base: Path) -> None:
    (found,) = document(base, TEXT, "--model", str(base / "model"))
    model, tokenizer = load_model(base / "model", "float32", "cpu"), load_tokenizer(base / "model")
    ids = tokenizer(TEXT)["input_ids"]
    kept = 1 + max(tokenizer.get_vocab().values())
    with torch.no_grad():
        plain = model(torch.tensor([ids]), output_hidden_states=True)
        middle = model.lm_head(model.transformer.ln_f(plain.hidden_states[1]))[0, :, :kept]
    for layer, logits in (("head", plain.logits[0, :, :kept]), ("layer_01", middle)):
        top = torch.softmax(logits, dim=1).topk(10)
        for place, words in enumerate(found["words"][found["layers"].index(layer)]):
            assert [word for word, _ in words] == [tokenizer.decode([token]) for token in top.indices[place].tolist()]
            assert [p for _, p in words] == pytest.approx(top.values[place].tolist(), abs=1e-4)
    assert found["layers"] == ["layer_00", "layer_01", "layer_02", "head"]
    assert found["tokens"] == [tokenizer.decode([token]) for token in ids]
    assert found["position"] == len(ids) - 1


def test_a_tasks_labels_are_compared_among_themselves(base: Path) -> None:
    (found,) = document(base, TEXT, "--model", str(base / "model"), "--task", str(base / "films.yaml"))
    model, tokenizer = load_model(base / "model", "float32", "cpu"), load_tokenizer(base / "model")
    ids = tokenizer(f"review: {TEXT}\n sentiment:")["input_ids"]
    words = [tokenizer(f" {word}")["input_ids"][0] for word in ("negative", "positive")]
    with torch.no_grad():
        expected = torch.softmax(model(torch.tensor([ids])).logits[0, -1, words], dim=0)
    assert found["labels"] == ["bad", "good"]
    assert found["label_probabilities"][-1][-1] == pytest.approx(expected.tolist(), abs=1e-5)
    (masked,) = document(base, TEXT, "--model", str(base / "masked"))
    assert masked["layers"][-1] == "head"


def test_a_study_adds_its_calibration_and_training_rows(base: Path) -> None:
    (found,) = document(base, "a fine film number 3", "--run", "latest")
    assert found["task"] == "films"
    for kind in ("before", "after"):
        shape = torch.tensor(found["calibration"][kind]).shape
        assert shape == (4, len(found["tokens"]), 2)
    near = found["nearest"]
    assert [one["cosine"] for one in near] == sorted((one["cosine"] for one in near), reverse=True)
    assert near[0]["text"] == "a fine film number 3"  # it is a training row
    assert near[0]["label"] == "good"
    assert near[0]["cosine"] == pytest.approx(1, abs=1e-3)


def test_the_page_needs_no_network_and_no_colour_and_the_last_layer_stays(base: Path, tmp_path: Path) -> None:
    text = 'a "fine" <script>film</script>'
    found = lens(base, text, "--run", "latest", "--html", str(tmp_path / "lens.html"))
    assert found.exit_code == 0, found.output
    written = (tmp_path / "lens.html").read_text()
    assert not re.findall(r"(?:src|href)=|https?://", written)
    assert "<script>film" not in written
    assert written.count('role="grid"') == 4  # words, labels, before and after calibration
    assert "tr:last-child > * { position: sticky" in written
    tops = json.loads(re.search(r"const tops = (.*);\n", written).group(1))  # type: ignore[union-attr]
    assert len(tops["words-0"][0][0]) == 10
    assert page(document(base, text, "--run", "latest")) == written


def test_the_terminal_shows_every_layer_and_the_last_position(base: Path) -> None:
    shown = lens(base, TEXT, "--run", "latest").stdout
    assert [line.split()[0] for line in shown.splitlines()[2:6]] == ["layer_00", "layer_01", "layer_02", "head"]
    assert shown.splitlines()[1].split()[-2:] == ["label", "calibrated"]
    assert "near: " in shown


def test_a_file_has_a_text_on_each_line(base: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a fine film\n\na dull film\n")
    found = document(base, "--file", str(tmp_path / "texts.txt"), "--model", str(base / "model"))
    assert [one["text"] for one in found] == ["a fine film", "a dull film"]


def test_a_run_that_calibrated_some_layers_says_so(base: Path, tmp_path: Path) -> None:
    store, given = open_store(tmp_path / "store"), STUDY + "calibrated: []\n"
    config = LayersConfig.model_validate(yaml.safe_load(given))
    study = LAYERS.job(config, base, None, FingerprintCache(store.root / "facts.json"), store)
    run_plan(make_plan(study.targets, store), lambda: InlineEngine(store, lambda *_: None), lambda *_: None)
    record = open_run(store, study.targets, given)
    record.write("results.json", stored(study.results(store, lambda *_: None)))
    record.write(ORIGIN, {"folder": str(base), "data_dir": None})
    found = CliRunner().invoke(app, ["lens", TEXT, "--run", "latest", "--store", str(tmp_path / "store")])
    assert "has no calibration of layer_00; set `layers: [all]` and `calibrated: [head]`" in str(found.exception)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give a text or a file"),
        ([TEXT, "--file", "x"], "give a text or a file"),
        (["--file", "missing.txt"], "--file missing.txt: cannot be read"),
        ([" "], "there is no text"),
        ([TEXT, "--html", "missing/page.html"], "no folder missing"),
        ([TEXT, "--model", "{base}/shared"], "found no list of 2 blocks"),
        ([TEXT, "--model", "{base}/encdec"], "its decoder has one position"),
        (["fine " * 200, "--model", "{base}/model"], "the window of model holds 128; shorten it"),
        ([TEXT, "--model", "{base}/model", "--task", "{base}/pairs.yaml"], "has the fields text, claim"),
        ([TEXT, "--run", "latest", "--task", "other"], "has no task 'other'; it has films"),
        ([TEXT, "--run", "latest", "--model", "other"], "has no model 'other'; it has model"),
    ],
)
def test_bad_input_is_one_clear_error(base: Path, arguments: list[str], told: str) -> None:
    found = lens(base, *(one.format(base=base) if "{" in one else one for one in arguments))
    assert getattr(found.exception, "exit_code", None) == 2, found.exception
    assert told in str(found.exception)
