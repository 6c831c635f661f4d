"""The budget of tokens for demonstrations: what it limits is told, what it never reaches is in no key."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.workflows import test_steps
from tests.workflows.test_demonstrations import TOKENIZER, demonstration_artifact, demonstrations
from tests.workflows.test_steps import ROWS, Compared, failure
from workflows.compare.results import remarks
from workflows.steps.demonstrations import texts_before

compare = test_steps.compare  # the fixture


@pytest.mark.parametrize("method", ["icl", "icl-bm25"])
def test_a_budget_of_tokens_limits_demonstrations_and_is_told(method: str, compare: Compared) -> None:
    model, budget = tiny.llama(max_position_embeddings=512), 130  # tokens: a few rows, where the window holds many
    store, cells, _ = compare(model, methods=[method])
    assert remarks(cells, store) == []
    store, cells, _ = compare(model, methods=[method], encoding={"demonstration_tokens": budget})
    fit = cells[0].fits[0]
    found, told = demonstrations(store, fit), remarks(cells, store)
    texts = [found["text"]] if method == "icl" else texts_before(demonstration_artifact(store, fit), range(len(ROWS)))
    taken = [len(TOKENIZER(text)["input_ids"]) for text in texts]
    assert budget / 2 < max(taken) <= budget
    assert any(f"encoding.demonstration_tokens: {budget} limits them" in line for line in told)


def test_a_budget_that_holds_no_demonstration_is_an_error(compare: Compared) -> None:
    _, _, outcomes = compare(methods=["icl"], encoding={"demonstration_tokens": 8})
    assert "more than encoding.demonstration_tokens (8). Raise it" in str(failure(outcomes).error)


def test_a_budget_that_the_window_never_reaches_is_in_no_key(compare: Compared) -> None:
    _, (cell,), _ = compare(methods=["icl"], encoding={"max_tokens": 100})
    _, (same,), outcomes = compare(methods=["icl"], encoding={"max_tokens": 100, "demonstration_tokens": 100})
    assert same.score.key == cell.score.key
    assert {outcome.state for outcome in outcomes.values()} == {"cached"}
