"""`label_tokens: whole`, inline on tiny models, against a plain pass over prompt and word for each label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestration.graph import in_order
from tests import tiny
from tests.workflows import test_demonstrations, test_steps
from tests.workflows.films import TASK, write_films
from tests.workflows.test_steps import ROWS, Compared, failure
from vocabsem_core.baselines.contextual_calibration import log_prior
from workflows.cli.validate import validate
from workflows.compare.results import remarks
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column
from workflows.steps.demonstrations import CONTENT_FREE

compare = test_steps.compare  # the fixture
demonstrations = test_demonstrations.demonstrations
WORDS = {"bad": "film world", "good": "world film"}  # their means are the same
WHOLE = {**TASK, "words": WORDS, "label_tokens": "whole"}
TOKENIZER = tiny.tokenizer()


@torch.no_grad()
def plain(model: Any, text: str, words: dict[str, str] = WORDS) -> torch.Tensor:
    """Of each word after a text."""
    context, found = TOKENIZER(text)["input_ids"], []
    for word in words.values():
        ids = TOKENIZER(f"{text} {word}")["input_ids"]
        told = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
        found.append(sum(told[place - 1, ids[place]] for place in range(len(context), len(ids))))
    return torch.stack(found)


def prompt(row: dict[str, str]) -> str:
    return WHOLE["template"].format(**row)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "phi"])
def test_scores_are_log_likelihoods_of_the_whole_words(name: str, compare: Compared) -> None:
    model = tiny.ALL[name]()
    store, cells, outcomes = compare(model, task=WHOLE, methods=["zero-shot", "icl"], execution={"batch_tokens": 64})
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    assert {label.split()[0] for label in outcomes} & {"head", "verbalizer", "encode"} == set()
    ahead = demonstrations(store, cells[1].fits[0])["text"]
    assert " film world\n\n" in ahead
    for cell, before in zip(cells, ("", ahead), strict=True):
        scores = torch.from_numpy(read_column(store.find(cell.fits[0]), "scores")).double()
        expected = torch.stack([plain(model, before + prompt(row)) for row in ROWS])
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_contextual_calibration_divides_by_the_words_of_content_free_prompts(compare: Compared) -> None:
    model, asked = tiny.gpt2(), {"method": "zero-shot", "settings": {"contextual": True}}
    store, (cell,), _ = compare(model, task=WHOLE, methods=[asked])
    prior = log_prior(torch.stack([plain(model, prompt({"text": text})) for text in CONTENT_FREE]))
    expected = torch.stack([plain(model, prompt(row)).log_softmax(dim=0) - prior for row in ROWS])
    scores = torch.from_numpy(read_column(store.find(cell.fits[0]), "scores")).double()
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_a_search_and_retrieved_demonstrations_run_on_them(compare: Compared) -> None:
    _, cells, outcomes = compare(task=WHOLE, methods=["icl", "icl-bm25", "icl-dense"], search={"trials": 2})
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    for cell in cells:
        read = [step.name for step in in_order([cell.fits[0]])]
        assert "likelihoods" in read
        assert "head" not in read


def test_what_reads_rows_for_labels_does_as_with_auto(compare: Compared) -> None:
    methods = ["zero-shot", "affinity", "calibration", "knn-lm"]
    _, plainly, _ = compare(task={**TASK, "label_tokens": "auto"}, methods=methods)
    _, whole, outcomes = compare(task={**TASK, "label_tokens": "whole"}, methods=methods)
    same = [one.score.key == other.score.key for one, other in zip(plainly, whole, strict=True)]
    assert same == [False, True, True, True]
    ran = {label.split()[0] for label, outcome in outcomes.items() if outcome.state == "ran"}
    assert ran == {"likelihoods", "fit", "score"}


def test_a_prompt_that_words_leave_no_room_for_is_cut_counted_and_reported(compare: Compared) -> None:
    long = [{"text": "word " * 200, "label": "good"}, *ROWS]
    store, cells, _ = compare(task=WHOLE, rows=long, methods=["zero-shot"])
    (line,) = remarks(cells, store)
    assert line.startswith("likelihoods model films test: 1 of 25 prompts cut to 128 tokens (")
    found = read_column(store.find(cells[0].fits[0].inputs["test"]), "tokens")
    assert found.max() == 127  # the window, and one of the word's two tokens is read


def test_labels_with_one_word_are_refused_with_what_would_do(compare: Compared) -> None:
    _, _, outcomes = compare(task={**WHOLE, "label_tokens": "mean"}, methods=["zero-shot"])
    assert "`label_tokens: whole` is for zero-shot and icl under causal models" in str(failure(outcomes).error)


def test_a_masked_model_is_refused_before_anything_runs(compare: Compared, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"task 'films', method 'zero-shot': `label_tokens: whole` .* is a masked one"
    ):
        compare(tiny.bert(), task=WHOLE, methods=["affinity", "zero-shot"])
    (tmp_path / "w.yaml").write_text("{workflow: compare, models: [model], tasks: [films.yaml], methods: [zero-shot]}")
    found = validate(tmp_path / "w.yaml", None)
    assert len([one for one in found.problems if "needs a causal model; model is a masked one" in one]) == 1


def test_a_stored_layer_has_no_words(compare: Compared) -> None:
    asked = {"method": "zero-shot", "layer": "layer_01"}
    with pytest.raises(ConfigError, match="reads no stored layer, found layer: layer_01"):
        compare(task=WHOLE, methods=[asked], encoding={"layers": ["layer_01"]})


def test_validate_shows_whole_words_and_the_rows_of_those_that_read_rows(tmp_path: Path) -> None:
    tiny.save(tmp_path / "model", tiny.gpt2())
    write_films(tmp_path, ROWS, ROWS, WHOLE)
    (tmp_path / "w.yaml").write_text(
        "{workflow: compare, models: [model], tasks: [films.yaml], methods: [zero-shot, affinity]}"
    )
    found = validate(tmp_path / "w.yaml", None)
    assert found.problems == []
    whole, rows = found.tasks[0].words
    assert (whole.rule, rows.rule) == ("whole", "first")
    assert ["".join(tokens) for tokens in whole.tokens.values()] == [f" {word}" for word in WORDS.values()]
