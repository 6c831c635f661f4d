"""What methods read beside demonstrations: content-free prompts, unlabelled rows, rows that none holds out."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workflows import test_steps
from tests.workflows.test_demonstrations import CLASSES, demonstrations
from tests.workflows.test_steps import Compared
from workflows.config.compare import MethodConfig
from workflows.errors import ConfigError
from workflows.methods.inputs.states import TaskFeatures
from workflows.methods.resolved import resolve

compare = test_steps.compare  # the fixture


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("zero-shot", {"contextual": True}),
        ("calibration", {"centre": "content-free"}),
        ("affinity-centred", {"centre": "content-free"}),
    ],
)
def test_content_free_prompts_need_shared_demonstrations(method: str, settings: dict[str, Any]) -> None:
    asked = MethodConfig(method=method, demonstrations="bm25", settings=settings)
    with pytest.raises(ConfigError, match="need demonstrations that all prompts share, found demonstrations: bm25"):
        resolve(asked)


@pytest.mark.parametrize("kind", ["random", "bm25"])
@pytest.mark.parametrize("size", ["full", 3])
def test_a_mean_of_unlabelled_rows_is_of_all_that_are_read(kind: str, size: Any, compare: Compared) -> None:
    """affinity-centred, whose labels are not read, sees states from the rows that `semantic-prior` learns from."""
    methods = [{"method": name, "demonstrations": kind} for name in ("affinity-centred", "semantic-prior")]
    store, cells, outcomes = compare(methods=methods, train_size=size)
    assert {outcome.state for outcome in outcomes.values()} == {"ran"}
    centred, prior = (store.find(cell.fits[0].inputs["train"]) for cell in cells)
    assert centred.rows == prior.rows > len(demonstrations(store, cells[0].fits[0])["validation"])


def test_a_method_that_holds_nothing_out_learns_from_all_rows_beside_the_demonstrations(compare: Compared) -> None:
    store, (cell,), _ = compare(methods=[{"method": "semantic-prior", "demonstrations": "bm25"}])
    inputs = {role: store.find(step) for role, step in cell.fits[0].inputs.items()}
    listed = demonstrations(store, cell.fits[0])
    both = TaskFeatures(inputs, "head", CLASSES, "full", 0, hold_out=False)
    assert len(both.train.labels) == len(both.validation.labels) == len({*listed["train"], *listed["validation"]})
    assert len(both.train.labels) == both.labelled_rows
    assert cell.fits[0].identity["held_out"] is False
