"""Steps on tiny random models of each kind, inline: whole comparisons, truncation, and data that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestration.execution.scheduler import InlineEngine, Outcome, run_plan
from orchestration.graph import in_order
from orchestration.runs.plan import make_plan
from orchestration.store.artifacts import Store, open_store
from orchestration.store.fingerprint_cache import FingerprintCache
from tests import tiny
from tests.workflows.films import TASK, films, write_films
from workflows.compare.graph import Cell, comparison
from workflows.compare.results import read_result, remarks
from workflows.config.compare import CompareConfig
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column, read_states
from workflows.results.costs import Ledger
from workflows.steps.states import stored_states

Compared = Callable[..., tuple[Store, list[Cell], dict[str, Outcome]]]
ROWS = films(24)
METHODS = ["zero-shot", "affinity", "calibration", "linear-probe", "knn"]


@pytest.fixture
def compare(tmp_path: Path) -> Compared:
    """Run a comparison on a tiny model; store, cells, and outcomes by label."""

    def call(
        model: Any = None, rows: list[dict] = ROWS, task: dict = TASK, **changes: Any
    ) -> tuple[Store, list[Cell], dict[str, Outcome]]:
        folder = tmp_path / "model"
        if not folder.exists():
            tiny.save(folder, model or tiny.gpt2())
            if model is not None and type(model).__name__.endswith("MaskedLM"):
                tiny.masked_tokenizer().save_pretrained(folder)
        write_films(tmp_path, rows[::-1], rows, task)
        document = {
            "workflow": "compare",
            "models": ["model"],
            "tasks": ["films.yaml"],
            "methods": METHODS,
            "seeds": [0],
        }
        config = CompareConfig.model_validate({**document, "search": {"trials": 0}, **changes})
        store = open_store(tmp_path / "store")
        cells = comparison(config, tmp_path, None, FingerprintCache(tmp_path / "facts.json"))
        plan = make_plan([cell.score for cell in cells], store)
        outcomes = run_plan(plan, lambda: InlineEngine(store, lambda *_: None), lambda *_: None)
        return store, cells, {entry.step.label: outcomes[entry.step.key] for entry in plan}

    return call


def failure(outcomes: dict[str, Outcome]) -> Outcome:
    (only,) = {outcome.error: outcome for outcome in outcomes.values() if outcome.state == "failed"}.values()
    return only


@pytest.mark.parametrize("name", [*tiny.ALL, *tiny.MASKED, *tiny.SEQ2SEQ])
def test_every_kind_of_model_goes_from_text_to_scores(name: str, compare: Compared) -> None:
    model = {**tiny.ALL, **tiny.MASKED, **tiny.SEQ2SEQ}[name]()
    store, cells, outcomes = compare(model, encoding={"max_tokens": 100})
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    results = [found[0] for cell in cells if (found := read_result(cell, Ledger(store)))]
    assert [result.method for result in results] == METHODS
    assert all(0 <= result.low <= result.mean <= result.high <= 1 and result.n_test == 24 for result in results)


def test_zero_shot_predicts_what_a_plain_forward_predicts(compare: Compared) -> None:
    store, cells, _ = compare(tiny.phi())
    model, tokenizer = tiny.phi(), tiny.tokenizer()
    words = [tokenizer(f" {word}")["input_ids"][0] for word in TASK["words"].values()]
    expected = []
    for row in ROWS:
        ids = torch.tensor([tokenizer(TASK["template"].format(**row))["input_ids"]])
        expected.append(int(model(input_ids=ids).logits[0, -1, words].argmax()))
    fit = store.find(cells[0].fits[0])
    assert read_column(fit, "prediction").tolist() == expected


def test_stored_states_are_a_plain_forwards_states_in_row_order(compare: Compared) -> None:
    store, cells, _ = compare(tiny.llama(), encoding={"layers": ["layer_01", "head"], "store_dtype": "float32"})
    encode = cells[0].fits[0].inputs["test"]
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    for layer, place in (("layer_01", 1), ("head", 2)):
        states = read_states(store.find(encode), layer)
        for row, expected in zip(ROWS, states, strict=True):
            ids = torch.tensor([tokenizer(TASK["template"].format(**row))["input_ids"]])
            hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[place][0, -1]
            torch.testing.assert_close(expected, hidden, rtol=1e-4, atol=1e-5)


def test_a_prompt_longer_than_the_window_is_cut_counted_and_reported(compare: Compared) -> None:
    long = [{"text": "word " * 200, "label": "good"}, *ROWS]
    store, cells, outcomes = compare(tiny.gpt2(), rows=long)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    lines = remarks(cells, store)
    assert len(lines) == 2
    assert lines[0].startswith("encode model films test: 1 of 25 prompts cut to 128 tokens (")


def test_a_tokenizer_that_changed_since_the_plan_is_refused(
    compare: Compared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make_plan

    def plan_and_spoil(*given: Any) -> Any:
        planned = plain(*given)
        with open(tmp_path / "model" / "tokenizer.json", "a", encoding="utf-8") as file:
            file.write("\n")
        return planned

    monkeypatch.setattr(f"{__name__}.make_plan", plan_and_spoil)
    outcomes = compare(methods=["zero-shot", "icl"])[2]
    told = failure(outcomes).error
    assert told.endswith("run again, and on a cluster put the same files on every node")
    assert {label.split()[0] for label, outcome in outcomes.items() if outcome.error == told} == {
        "head",
        "verbalizer",
        "encode",
        "demonstrations",
    }


def test_a_limit_takes_rows_by_content_whatever_their_order(compare: Compared) -> None:
    store, cells, _ = compare(limit={"train": 12, "test": 6})
    texts = cells[0].fits[0].inputs["test"].inputs["texts"]
    kept = {table["text"] for table in _texts(store, texts)}
    store, cells, _ = compare(rows=ROWS[::-1], limit={"train": 12, "test": 6})
    again = {table["text"] for table in _texts(store, cells[0].fits[0].inputs["test"].inputs["texts"])}
    assert kept == again
    assert len(kept) == 6


def _texts(store: Store, step: Any) -> list[dict]:
    from workflows.methods.inputs.states import read_tables

    return [row for table in read_tables(store.find(step)) for row in table.to_pylist()]


def test_only_the_scoring_step_reads_test_labels(compare: Compared) -> None:
    _, cells, _ = compare()
    for step in in_order([step for cell in cells for step in (cell.score, cell.versus, cell.best) if step]):
        reads = [source.label for source in step.inputs.values()]
        assert ("labels films test" in reads) == (step.name in ("score", "versus", "best"))


def test_a_class_with_one_row_is_trained_on(compare: Compared) -> None:
    rows = [row for row in ROWS if row["label"] == "bad"] + ROWS[1:2]
    methods = ["linear-probe", "calibration", "centroid", "knn"]
    store, cells, outcomes = compare(rows=rows, methods=methods)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    told = "labels films train: label 'good' has one training row, and so no validation row"
    assert remarks(cells, store) == [told]


def test_a_class_smaller_than_the_training_size_is_told_once_and_wholly_taken(compare: Compared) -> None:
    rows = [row for row in ROWS if row["label"] == "bad"][:5] + [row for row in ROWS if row["label"] == "good"]
    store, cells, outcomes = compare(rows=rows, methods=["linear-probe", "centroid", "zero-shot"], train_size=8)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    told = "task films: label 'bad' has 5 training rows, fewer than the 8 of train_size; all of them are taken"
    assert remarks(cells, store) == [told]


def test_a_class_without_rows_is_named(compare: Compared) -> None:
    told = failure(compare(rows=[row for row in ROWS if row["label"] == "bad"], methods=["linear-probe"])[2])
    assert told.error.startswith("label 'good' has no training row")
    assert told.exit_code == 2


def test_a_label_without_a_word_is_named_with_its_row(compare: Compared) -> None:
    told = failure(compare(rows=[*ROWS, {"text": "so so", "label": "goood"}], methods=["zero-shot"])[2])
    assert "row 25: label 'goood' has no word in the task's `words`; did you mean 'good'?" in told.error


def test_labels_of_the_same_tokens_are_both_named(compare: Compared) -> None:
    same = {**TASK, "words": {"bad": "film", "good": "film"}}
    told = failure(compare(task=same, methods=["affinity"])[2])
    assert "labels 'bad' and 'good' have the same tokens" in told.error


def test_a_masked_model_without_a_mask_token_is_told_so(compare: Compared, tmp_path: Path) -> None:
    tiny.save(tmp_path / "model", tiny.bert())
    assert "has no mask token" in failure(compare(methods=["zero-shot"])[2]).error


def test_steps_that_cost_something_say_what_they_took(compare: Compared) -> None:
    store, cells, _ = compare(methods=["linear-probe", "affinity"], search={"trials": 2})
    names = {"encode", "head", "basis", "search", "fit"}
    dear = [step for step in in_order([cell.score for cell in cells]) if step.name in names]
    assert {step.name for step in dear} == names
    for step in dear:
        found = store.find(step).json("provenance.json")
        assert 0 < found["work_seconds"] <= found["seconds"] + 0.01
        assert found["peak_rss"] > 1 << 20


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_name_the_layer(value: float) -> None:
    with pytest.raises(ConfigError, match=r"layer head: .* not finite; try dtype: float32"):
        stored_states("head", torch.tensor([[1.0, value]]), "float16")


def test_states_too_large_for_the_stored_precision_name_the_layer_and_the_way_out() -> None:
    large = torch.tensor([[1.0, 70000.0]])
    with pytest.raises(ConfigError, match=r"layer layer_03: states up to 7e\+04 do not fit float16; .*float32"):
        stored_states("layer_03", large, "float16")
    np.testing.assert_array_equal(stored_states("layer_03", large, "float32"), large.numpy())


def test_a_file_that_changes_after_planning_is_refused(compare: Compared, tmp_path: Path) -> None:
    _, cells, _ = compare(methods=["zero-shot"])
    texts = cells[0].fits[0].inputs["test"].inputs["texts"]
    elsewhere = open_store(tmp_path / "elsewhere")
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "another", "label": "good"}) + "\n")
    plan = make_plan([texts], elsewhere)
    outcomes = run_plan(plan, lambda: InlineEngine(elsewhere, lambda *_: None), lambda *_: None)
    assert "changed during the run; run again" in outcomes[texts.key].error


def test_a_methods_defaults_are_in_its_keys(compare: Compared) -> None:
    _, cells, _ = compare(
        methods=["knn", {"method": "knn", "name": "same", "settings": {"k": 16}}], search={"trials": 1}
    )
    assert cells[0].fits[0].identity["settings"] == {"k": 16, "distance": "cosine"}
    assert cells[0].fits[0].key == cells[1].fits[0].key


def test_folds_are_in_the_keys_of_fits_alone_and_counted(compare: Compared) -> None:
    probe = {"method": "linear-probe"}
    store, cells, _ = compare(methods=[probe, {**probe, "name": "folds", "folds": 5}], search={"trials": 2})
    (one,), (five,) = cells[0].fits.values(), cells[1].fits.values()
    assert "folds" not in one.identity
    assert five.identity == {**one.identity, "folds": 5, "mean_of_folds": 2}
    assert one.inputs["search"].key == five.inputs["search"].key
    weights = [store.find(step).json("fit.json")["trained_weights"] for step in (one, five)]
    assert weights[1] == 5 * weights[0]
    assert cells[0].score.key != cells[1].score.key


def test_neighbours_votes_are_probabilities_again_after_softmax(compare: Compared) -> None:
    store, cells, _ = compare(methods=[{"method": "knn", "settings": {"k": 4}}])
    shares = torch.from_numpy(read_column(store.find(cells[0].fits[0]), "scores")).softmax(dim=1)
    assert torch.allclose(shares * 4, (shares * 4).round(), atol=1e-4)
