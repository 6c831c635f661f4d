"""A small pretraining in this process: its folder and card, what is measured, and what becomes of a failure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from orchestration.runs.record import runs
from orchestration.store.arrow import table_of, write_table
from orchestration.store.artifacts import Store, open_store
from orchestration.tracking.tracker import TrackingError
from tests.card import read_card
from tests.workflows.films import films, write_films
from tests.workflows.results.test_costs import step
from tests.workflows.sweeps import QUIET
from workflows.config.yaml_file import read_workflow
from workflows.errors import ConfigError
from workflows.inputs import corpus
from workflows.inputs.corpus import is_held_out, measured_pieces
from workflows.pretrain import model_card
from workflows.registry import WORKFLOWS
from workflows.session import RunSummary, open_session, run
from workflows.steps.pretrain import TokenRows, bits_step

DOCUMENT: dict[str, Any] = {
    "workflow": "pretrain",
    "name": "tiny",
    "corpus": {"files": ["*/text.txt"], "held_out": 0.1234},
    "vocabulary": 300,
    "model": {"width": 8, "layers": 1, "heads": 2, "context": 16},
    "training": {"tokens": 64, "batch_tokens": 32},
    "execution": {"executor": "inline"},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def again(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSummary]:
    """Run it, the first time or once more, with these fields of the workflow file changed."""

    def away(*_: Any) -> str:
        raise TrackingError("MLflow is away")

    monkeypatch.setattr("workflows.session.fill", away)
    for number, name in enumerate(("first", "second")):
        (tmp_path / name).mkdir()
        texts = [f"Text {place} of {name}, {'and so on ' * (place % 7)}." for place in range(40 + number)]
        (tmp_path / name / "text.txt").write_text("\n\n".join(texts))
    write_films(tmp_path, films(24), films(24))

    def call(**changes: Any) -> RunSummary:
        file = tmp_path / "pretrain.yaml"
        file.write_text(yaml.safe_dump({**DOCUMENT, **changes}))
        return run(open_session(read_workflow(file, WORKFLOWS), file, store, None, None), QUIET)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model's."""
    return tmp_path / "models" / "tiny"


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def anew(report: RunSummary) -> list[str]:
    return [note for note in report.notes if "written again" in note]


def test_files_of_one_name_both_stand_on_the_card_and_small_shares_are_told_as_they_are(
    again: Callable[..., RunSummary], folder: Path
) -> None:
    again()
    assert list(read_card(folder).corpus) == ["first/text.txt", "second/text.txt"]
    assert len(set(read_card(folder).corpus.values())) == 2
    assert "(12.34% of it held out by hash)" in card_of(folder)


def test_a_card_follows_the_workflow_file(again: Callable[..., RunSummary], folder: Path) -> None:
    assert anew(again(description="Made of nothing.")) == []
    before = card_of(folder)
    report = again(description="Made of something.", evaluation={"tasks": ["films.yaml"]})
    assert [note.rpartition(": ")[2] for note in anew(report)] == ["README.md written again"]
    assert "Made of something." in card_of(folder)
    assert "| films | 24 |" in card_of(folder)
    report = again(description="Made of nothing.")
    assert (len(anew(report)), report.counts["ran"], card_of(folder)) == (1, 0, before)
    assert anew(again(description="Made of nothing.")) == []


def test_what_is_broken_or_missing_in_the_models_folder_is_mended(
    again: Callable[..., RunSummary], folder: Path
) -> None:
    again()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(before[name][:-9])
    (folder / "config.json").unlink()
    (folder / "notes.txt").write_text("the user's own")
    (note,) = anew(again())
    assert note.endswith(": config.json, model.safetensors, tokenizer.json written again")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {**before, "notes.txt": b"the user's own"}
    (folder / "README.md").unlink()
    (note,) = anew(again())
    assert note.endswith(": README.md written again")


def test_a_folder_of_another_model_is_left_alone(again: Callable[..., RunSummary], folder: Path) -> None:
    """One that shares tokenizer and configuration."""
    again()
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="is there already and holds something else"):
        again(training={**DOCUMENT["training"], "seed": 1})
    assert (folder / "model.safetensors").read_bytes() == weights


def test_a_training_that_fails_after_its_bits_were_measured_tells_its_own_error(
    again: Callable[..., RunSummary], store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again()
    (record,) = runs(store)
    before = record.read("results.json")
    for made in (store.root / "pretrain").iterdir():
        shutil.rmtree(made)
    shutil.rmtree(folder)

    def fails(*_: Any) -> None:
        raise RuntimeError("the training failed")

    monkeypatch.setattr("workflows.steps.pretrain.run_workers", fails)
    report = again()
    assert [outcome.error for _, outcome in report.failures] == ["RuntimeError: the training failed"]
    assert (report.results, record.read("results.json")) == ([], before)
    assert record.read("tracked.json")["parent"]["status"] == "FAILED"


def test_of_many_held_out_pieces_those_of_smallest_hash_are_measured(
    again: Callable[..., RunSummary], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (corpus, model_card):
        monkeypatch.setattr(module, "MEASURED_PIECES", 4)
    monkeypatch.setattr(model_card, "_CUT", "At most 4.")
    texts = [f"text {number}" for number in range(30)]
    found = measured_pieces(texts)
    assert (len(found), found) == (4, [text for text in texts if text in found])
    largest = max(found, key=lambda text: corpus.row_hash({"text": text}))
    share = next(step / 1000 for step in range(1000) if is_held_out(largest, step / 1000))
    assert [text for text in texts if is_held_out(text, share)] == found
    report = again()
    assert [result.n_test for result, _ in report.results] == [4]
    assert "At most 4." in card_of(folder)


def test_bits_are_measured_on_a_gpu_where_there_is_one_and_only_a_corpus_is_cut() -> None:
    model, tokenizer, texts = (step(name) for name in ("pretrain", "tokenizer", "texts"))
    of_task = bits_step("tiny", "films", model, tokenizer, texts)
    of_corpus = bits_step("tiny", "held-out", model, tokenizer, step("corpus"))
    assert of_task.resources.gpus is of_corpus.resources.gpus is None
    assert (of_task.identity, of_corpus.identity) == ({}, {"pieces": 1000})


def test_rows_of_shards_are_found_by_their_numbers_without_a_copy(tmp_path: Path) -> None:
    parts = [torch.arange(12).view(3, 4), torch.empty(0, 4), torch.arange(12, 20).view(2, 4)]
    for number, part in enumerate(parts):
        table = table_of(range(len(part)), {"tokens": part.int().numpy()})
        write_table(tmp_path / f"{number}.arrow", table)
    rows = TokenRows([str(tmp_path / f"{number}.arrow") for number in range(3)])
    assert len(rows) == 5
    assert rows[torch.tensor([4, 0, 2, 3, 0])].tolist() == torch.cat(parts)[[4, 0, 2, 3, 0]].tolist()
    assert not any(shard.flags.owndata or shard.flags.writeable for shard in rows._shards if len(shard))
