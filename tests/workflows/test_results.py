"""The table a person reads, and the document a program reads."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from workflows.results import Detail, Result, document, read_stored, stored
from workflows.table import table


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
    return Result(**{**fields, **changes}), Detail(1234567, 2.34, constant, 0.1, {}, {})


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
    assert lines_with(shown, "knn", "same for all")
    assert lines_with(shown, "affinity", "0.000")


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
    }


def test_results_read_back_from_a_record_are_the_same() -> None:
    result, detail = entry(sd_seeds=None)
    found = [(result, dataclasses.replace(detail, settings={0: {"k": 3}, 12: {"k": 5}}))]
    assert read_stored(json.loads(json.dumps(stored(found)))) == found


def test_the_document_is_json_and_keeps_the_order_of_results() -> None:
    found = document("abc", {"ran": 1}, [entry(), entry(method="affinity")], None, 0.5)
    assert json.loads(json.dumps(found)) == found
    assert [result["method"] for result in found["results"]] == ["knn", "affinity"]
