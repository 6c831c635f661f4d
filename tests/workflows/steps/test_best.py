"""The best method of a task, and methods that are one and the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from orchestration.execution.work import StepContext
from orchestration.graph import Step
from orchestration.store.arrow import table_of
from orchestration.store.artifacts import Store, open_store
from vocabsem_core.statistics.paired_tests import lead
from workflows.steps.best import BEST, best_step, copies, fill_best, lead_of

LABELS = np.array([0, 1] * 10, dtype=np.int32)
RIGHT, HALF, WRONG = LABELS, np.zeros_like(LABELS), 1 - LABELS


@dataclass(frozen=True)
class Table:
    """A store with the steps of made-up fits in it."""

    store: Store

    def step(self, name: str, column: str, values: np.ndarray) -> Step:
        step = Step(name, name, 1, "nowhere:nothing", {"values": values.tolist()})
        writer = self.store.writer(step)
        writer.begin()
        writer.write_shard(0, table_of(range(len(values)), {column: values}))
        writer.commit({})
        return step

    def best(self, fits: list[dict[int, Step]]) -> tuple[Step, dict]:
        """The step, and what it finds."""
        step = best_step("here", fits, self.step("labels", "label", LABELS), 2, "accuracy")
        writer = self.store.writer(step)
        writer.begin()
        read = {role: self.store.need(one) for role, one in step.inputs.items()}
        fill_best(StepContext(step.identity, read, {}, writer, self.store.root / "scratch"))
        writer.commit({})
        return step, self.store.need(step).json(BEST)


def test_a_method_given_twice_is_compared_once_and_its_copy_differs_nowhere_from_the_best(tmp_path: Path) -> None:
    table = Table(open_store(tmp_path))
    fits = [{0: table.step("fit", "prediction", values)} for values in (HALF, RIGHT, HALF, RIGHT, WRONG)]
    told = copies(fits)
    assert told == [False, False, True, True, False]
    step, record = table.best(fits)
    assert sorted(record["scores"]) == [0.0, 0.5, 1.0]
    leads = [lead_of(step, record, one, copy) for one, copy in zip(fits, told, strict=True)]
    expected = [asdict(lead(values[None], RIGHT[None], LABELS, 2, "accuracy")) for values in (HALF, RIGHT, WRONG)]
    assert leads == [expected[0], None, expected[0], expected[1], expected[2]]


def test_copies_do_not_change_the_key_and_methods_that_are_all_the_same_have_no_worse_one(tmp_path: Path) -> None:
    table = Table(open_store(tmp_path))
    half, right = ({0: table.step("fit", "prediction", values)} for values in (HALF, RIGHT))
    labels = table.step("labels", "label", LABELS)
    once, twice = (best_step("here", fits, labels, 2, "accuracy") for fits in ([half, right], [right, half, right]))
    assert once.key == twice.key
    step, record = table.best([half, half])
    assert lead_of(step, record, half, copy=False) is None
    assert lead_of(step, record, half, copy=True) == asdict(lead(HALF[None], HALF[None], LABELS, 2, "accuracy"))
