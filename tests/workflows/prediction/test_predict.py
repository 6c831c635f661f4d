"""A fit of a run labels new rows as it labelled the run's own test rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workflows.films import TASK
from tests.workflows.prediction.conftest import NAMES, Finished, finished
from tests.workflows.sweeps import QUIET
from vocabsem_core.finetuning.trainer import Classifier
from workflows.methods.inputs.states import read_column
from workflows.prediction.predict import predict
from workflows.runtime.progress import plain_lines


def fitted(run: Finished, method: str) -> Any:
    """What the run stored of a fit."""
    return run.choose(method=method).fit


@pytest.mark.parametrize("method", NAMES)
def test_the_runs_own_test_rows_get_the_labels_that_the_run_gave_them(compared: Finished, method: str) -> None:
    found = compared.predict(compared.folder / "test.jsonl", method=method)
    stored = fitted(compared, method)
    assert found.numbers.tolist() == read_column(stored, "prediction").tolist()
    assert found.labels == ("bad", "good")
    assert np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.probabilities.argmax(axis=1).tolist() == found.numbers.tolist()
    assert found.cut == 0


@pytest.mark.parametrize(
    ("encoders", "address", "few", "asked", "expected"),
    [
        (None, None, True, None, "inline"),
        (2, None, True, None, "inline"),
        (None, None, False, None, "inline"),  # Ray would have one reader as well
        (2, None, False, None, "ray"),
        (None, "10.0.0.1:6379", True, None, "ray"),
        (2, None, True, "ray", "ray"),
        (2, None, False, "inline", "inline"),
    ],
)
def test_this_process_reads_rows_where_a_ray_of_our_own_would_be_no_faster(
    compared: Finished,
    monkeypatch: pytest.MonkeyPatch,
    encoders: int | None,
    address: str | None,
    few: bool,
    asked: str | None,
    expected: str,
) -> None:
    class Carried(Exception):
        pass

    def carried(steps: Any, store: Any, execution: Any, *_: Any) -> None:
        raise Carried(execution.executor)

    monkeypatch.setattr("workflows.prediction.predict.carry_out", carried)
    monkeypatch.setattr("workflows.prediction.predict._FEW", 100 if few else 1)
    classifier = compared.choose(method="zero-shot")
    changed = {"executor": "ray", "encoders": encoders, "address": address}
    classifier = replace(classifier, execution=classifier.execution.model_copy(update=changed))
    with pytest.raises(Carried, match=f"^{expected}$"):
        predict(classifier, compared.folder / "test.jsonl", compared.store, asked, QUIET, plain_lines)


@pytest.mark.parametrize("method", ["zero-shot", "icl", "linear-probe"])
def test_whole_label_words_predict_as_in_the_run(tmp_path: Path, method: str) -> None:
    task = {**TASK, "label_tokens": "whole"}
    run = finished(tmp_path, task, methods=[{"method": method, **({"shots": 1} if method == "icl" else {})}])
    found = run.predict(run.folder / "test.jsonl")
    assert found.numbers.tolist() == read_column(fitted(run, method), "prediction").tolist()


def test_labels_of_new_rows_do_not_depend_on_their_order_or_the_others(compared: Finished, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (compared.folder / "test.jsonl").read_text().splitlines()]
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows[:4][::-1]))
    whole = compared.predict(compared.folder / "test.jsonl", method="linear-probe")
    part = compared.predict(few, method="linear-probe")
    assert np.allclose(part.probabilities, whole.probabilities[:4][::-1], atol=1e-3)


def test_the_best_on_validation_rows_is_taken_and_told(compared: Finished) -> None:
    chosen = compared.choose()
    scores = {}
    for method in NAMES:
        known = compared.choose(method=method)
        assert known.why == "as asked"
        assert known.validation["rows"] == 8  # a fifth of 40
        scores[method] = known.validation["score"]
    assert scores[chosen.candidate.method] == max(scores.values())
    assert chosen.why.startswith(f"highest accuracy on 8 validation rows: {max(scores.values()):.3f} (then ")


def test_a_fit_on_one_row_a_class_has_no_validation_rows(tmp_path: Path) -> None:
    run = finished(tmp_path, TASK, methods=["semantic-prior", "zero-shot"], train_size=1)
    known = run.choose()
    assert known.validation == {"rows": 0}
    assert known.why == "the first: no row is held out to choose by"
    found = run.predict(run.folder / "test.jsonl")
    assert found.numbers.tolist() == read_column(known.fit, "prediction").tolist()
    assert found.far is None


@pytest.mark.parametrize("method", ["linear-probe", "knn", "lora"])
def test_the_calibration_error_is_that_of_the_test_rows(compared: Finished, method: str) -> None:
    """Against the sum over bins, written out."""
    chosen = compared.choose(method=method)
    scores = read_column(chosen.fit, "scores").astype(float) / chosen.validation["temperature"]
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    rows = [json.loads(line) for line in (compared.folder / "test.jsonl").read_text().splitlines()]
    truth = np.array([("bad", "good").index(row["label"]) for row in rows])
    sure, hit = chances.max(axis=1), chances.argmax(axis=1) == truth
    bins = np.floor(sure * 15).clip(max=14).astype(int)
    expected = sum(abs(hit[bins == n].mean() - sure[bins == n].mean()) * (bins == n).mean() for n in set(bins))
    assert chosen.certainty["rows"] == len(rows)
    assert chosen.certainty["after"] == pytest.approx(expected, abs=1e-5)


def test_scores_of_a_trained_model_that_are_not_numbers_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its validation rows, and of new rows."""
    run = finished(tmp_path, TASK, methods=[{"method": "lora", "settings": {"epochs": 1}}])

    def unknown(self: Classifier, prompts: Any, *given: Any) -> Any:
        return plain(self, prompts, *given) * float("nan")

    plain, told = Classifier.scores, r"method 'lora': predict\(\) returned scores that are not numbers"
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "scores", unknown)
        with pytest.raises(Exception, match=told):
            run.choose()
    chosen = run.choose()
    monkeypatch.setattr(Classifier, "scores", unknown)
    with pytest.raises(Exception, match=told):
        predict(chosen, run.folder / "test.jsonl", run.store, None, QUIET, plain_lines)


def test_rows_unlike_the_training_rows_are_far(compared: Finished, tmp_path: Path) -> None:
    strange = tmp_path / "strange.jsonl"
    strange.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("0" * 90, "?!" * 40)))
    found = compared.predict(strange, method="centroid")
    assert found.far is not None
    assert found.far.any()
    known = compared.predict(compared.folder / "train.jsonl", method="centroid")
    assert known.far is not None
    assert known.far.mean() < 0.1


def test_a_second_method_reads_the_same_states(compared: Finished, tmp_path: Path) -> None:
    """The language model reads new rows once."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a fine film number 99"}\n')
    before = {a.folder for a in compared.store.artifacts()}
    compared.predict(rows, method="linear-probe")
    once = {a.folder for a in compared.store.artifacts()}
    compared.predict(rows, method="knn")
    twice = {a.folder for a in compared.store.artifacts()}
    assert sorted(folder.parent.name for folder in once - before) == ["encode", "predict", "texts"]
    assert sorted(folder.parent.name for folder in twice - once) == ["predict"]
