"""The table a person reads, and the document a program reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestration.store.artifacts import open_store
from tests.workflows.results.test_costs import commit, step
from workflows.compare.graph import Cell
from workflows.compare.results import read_result
from workflows.results.costs import Ledger
from workflows.results.document import document
from workflows.results.model import Costs, Detail, Result, Versus, read_stored, stored
from workflows.results.table import table
from workflows.results.verdicts import judged


def entry(constant: bool = False, **changes: Any) -> tuple[Result, Detail]:
    fields: dict[str, Any] = {
        "model": "reference",
        "task": "trec",
        "method": "knn",
        "metric": "accuracy",
        "mean": 0.5,
        "low": 0.41,
        "high": 0.59,
        "sd_seeds": 0.012,
        "seeds": [0, 1, 2],
        "n_test": 500,
    }
    return Result(**{**fields, **changes}), Detail(
        trained_weights=1234567, costs=Costs(fit=2.34), constant_prediction=constant, calibration_error=0.1
    )


def lines_with(text: str, *parts: str) -> list[str]:
    return [line for line in text.splitlines() if all(part in line for part in parts)]


def test_the_table_shows_every_result_with_its_numbers() -> None:
    shown = table([entry(), entry(method="affinity", mean=0.25, low=0.2, high=0.3)])
    assert lines_with(shown, "knn", "0.500", "0.410 to 0.590", "0.012", "1,234,567", "2.3")
    assert lines_with(shown, "affinity", "0.250", "0.200 to 0.300")


def test_the_table_has_a_block_for_each_model_and_task() -> None:
    shown = table([entry(), entry(method="affinity"), entry(task="mr", metric="macro_f1"), entry(model="other")])
    assert len(lines_with(shown, "method", "score")) == 3
    assert lines_with(shown, "trec", "accuracy", "500 test rows", "model reference")
    assert lines_with(shown, "mr", "macro_f1", "model reference")
    assert lines_with(shown, "trec", "model other")


def test_the_columns_stand_below_their_heads() -> None:
    shown = table([entry(), entry(method="a-much-longer-name", sd_seeds=None)]).splitlines()
    ends = {line.index(word) + len(word) for line, word in zip(shown[1:], ("fit seconds", "2.3", "2.3"), strict=True)}
    assert len(ends) == 1


def test_a_result_equal_for_all_seeds_says_so() -> None:
    shown = table([entry(sd_seeds=None), entry(method="affinity", sd_seeds=0.0)])
    assert lines_with(shown, "knn", "same")
    assert lines_with(shown, "affinity", "0.000")


def compared(method: str, mean: float, p: float, **changes: Any) -> tuple[Result, Detail]:
    result, detail = entry(method=method, **changes)
    versus = Versus("calibration", mean, mean - 0.05, mean + 0.05, p, [{"seed": 0, "won": 9, "lost": 4, "p": 0.27}])
    return result, dataclasses.replace(detail, versus=versus, costs=Costs(10.0, 2.0, 1.5, 0.25))


def test_verdicts_are_holms_over_all_comparisons_of_the_run() -> None:
    lines = [entry(method="calibration"), compared("a", 0.2, 0.01), compared("b", -0.2, 0.02), compared("c", 0.1, 0.03)]
    found = [detail.versus for _, detail in judged(lines)]
    assert [v and (v.p_holm, v.verdict) for v in found] == [
        None,
        (pytest.approx(0.03), "better"),
        (pytest.approx(0.04), "worse"),
        (pytest.approx(0.04), "better"),
    ]
    ((_, alone),) = judged(lines[3:])
    assert alone.versus is not None
    assert alone.versus.p_holm == 0.03
    more = judged([*lines, compared("d", 0.0, 0.9)])  # one comparison more
    assert [detail.versus.verdict for _, detail in more[1:] if detail.versus] == [
        "better",
        *["no difference shown"] * 3,
    ]


def test_the_table_says_the_verdict_its_interval_and_p_and_what_it_cost() -> None:
    shown = table(judged([entry(method="calibration"), compared("a", 0.2, 0.0001), compared("b", -0.01, 0.7)]))
    assert lines_with(shown, "seconds", "cached", "against calibration")
    assert lines_with(shown, "  a ", "13.8", "1.8", "better by 0.200 (+0.150 to +0.250, p <0.001)")
    assert lines_with(shown, "  b ", "no difference shown (-0.060 to +0.040, p 0.700)")
    assert lines_with(shown, "  calibration ", "not recorded")
    assert "p after Holm over 2 comparisons" in shown


def test_the_table_shows_the_largest_training_size_and_says_where_the_others_are() -> None:
    lines = judged([compared("a", 0.1, 0.5, train_size=16), entry(method="a", train_size=4, mean=0.111)])
    shown = table(lines)
    assert "trained on 16 rows per class" in shown
    assert "0.111" not in shown
    assert "vocabsem report" in shown
    assert "0.111" in table([lines[1]])


def test_another_budget_than_the_others_have_is_said() -> None:
    def given(method: str, seeds: list[int], trials: int | None, budget: int | None) -> tuple[Result, Detail]:
        result, detail = entry(method=method, seeds=seeds)
        return result, dataclasses.replace(detail, trials=trials, budget=budget)

    seeds = [0, 1, 2]
    lines = [
        given("calibration", seeds, 8, 8),
        given("knn", seeds, 6, 8),  # all that its space has
        given("affinity", seeds, None, None),  # nothing to tune
        given("lora", [0], None, 0),
        given("ia3", [0, 1], 4, 4),
    ]
    shown = table(lines)
    assert lines_with(shown, "lora", "[1 seed, defaults]")
    assert lines_with(shown, "ia3", "[2 seeds, 4 trials]")
    for name in ("calibration", "knn", "affinity"):
        assert not lines_with(shown, name, "[")


def test_a_constant_prediction_is_flagged_and_others_are_not() -> None:
    shown = table([entry(), entry(method="affinity", constant=True)])
    assert lines_with(shown, "affinity", "one class predicted throughout")
    assert not lines_with(shown, "knn", "one class predicted throughout")


def test_a_table_of_nothing_is_empty() -> None:
    assert table([]) == ""


def test_the_document_has_exactly_its_fields() -> None:
    found = document("abc", {"ran": 2, "cached": 1, "failed": 0}, [entry()], "m1", 1.23456)
    assert set(found) == {"run_id", "steps", "results", "mlflow_run_id", "seconds"}
    assert (found["run_id"], found["steps"], found["mlflow_run_id"], found["seconds"]) == (
        "abc",
        {"ran": 2, "cached": 1, "failed": 0},
        "m1",
        1.23,
    )


def test_each_result_of_the_document_has_exactly_its_fields() -> None:
    (result,) = document("abc", {}, [entry(sd_seeds=None)], None, 0.0)["results"]
    assert result == {
        "model": "reference",
        "task": "trec",
        "method": "knn",
        "metric": "accuracy",
        "mean": 0.5,
        "low": 0.41,
        "high": 0.59,
        "sd_seeds": None,
        "seeds": [0, 1, 2],
        "n_test": 500,
        "rows": "test",
        "train_size": "full",
        "encode_seconds": None,
        "basis_seconds": None,
        "search_seconds": None,
        "fit_seconds": 2.34,
        "seconds": None,
        "cached_seconds": None,
        "trained_weights": 1234567,
        "peak_bytes": None,
        "states_bytes": None,
        "fit_bytes": None,
        "dtype": None,
        "trials": None,
        "versus": None,
        "to_best": None,
        "constant_prediction": False,
        "calibration_error": 0.1,
    }


def test_results_read_back_from_a_record_are_the_same() -> None:
    result, detail = entry(sd_seeds=None)
    found = [
        (result, dataclasses.replace(detail, settings={0: {"k": 3}, 12: {"k": 5}})),
        *judged([compared("a", 0.1, 1.0)]),
    ]
    assert read_stored(json.loads(json.dumps(stored(found)))) == found


def test_the_document_is_json_and_keeps_the_order_of_results() -> None:
    found = document("abc", {"ran": 1}, [entry(), entry(method="affinity")], None, 0.5)
    assert json.loads(json.dumps(found)) == found
    assert [result["method"] for result in found["results"]] == ["knn", "affinity"]


def test_a_score_without_one_of_its_fits_is_no_result(tmp_path: Path) -> None:
    store, fits = open_store(tmp_path), {seed: step("fit", seed) for seed in (0, 1)}
    score = step("score", 0, **{f"seed {seed}": fit for seed, fit in fits.items()})
    cell = Cell(
        **{
            "extractor": SimpleNamespace(name="reference", parameters=7),
            "rows": {},
            "task": "trec",
            "method": "knn",
            "metric": "accuracy",
            "seeds": (0, 1),
        },
        **{"fits": fits, "score": score, "train_size": "full", "labels": ("a", "b")},
        **{"trials": None, "reference": "knn"},
    )
    numbers = {"mean": 0.5, "low": 0.4, "high": 0.6, "sd_seeds": 0.0}
    record = {"n_test": 9, "constant_prediction": False, "calibration_error": 0.1, "confusion": []}
    commit(store, score, {"score.json": {**record, "scores": {"accuracy": numbers}}})
    made = {"fit.json": {"trained_weights": 3, "settings": {"k": 1}}}
    assert read_result(cell, Ledger(store)) is None
    commit(store, fits[0], made)
    assert read_result(cell, Ledger(store)) is None
    commit(store, fits[1], made)
    found = read_result(cell, Ledger(store))
    assert found is not None
    assert found[1].settings == {0: {"k": 1}, 1: {"k": 1}}
