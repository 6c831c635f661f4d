"""Configurations, their packs, and what becomes of each: finished, stopped, failed, lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from vocabsem_core.calibration.batched_training import lane_bytes
from vocabsem_core.calibration.modules import CalibrationSettings, Labelled, untrained
from vocabsem_core.calibration.vocabulary import Vocabulary
from vocabsem_core.errors import InputError
from vocabsem_core.numerics import memory
from workflows.config.strict import Strict
from workflows.methods.base import Fitted, Method, Watch
from workflows.methods.registry import METHODS
from workflows.search import trials
from workflows.search.trials import (
    Configuration,
    best_first,
    configuration,
    pack_size,
    packs_of,
    side_by_side,
    try_pack,
    within_memory,
)

ROWS, CLASSES = 20, 2
LABELS = torch.arange(ROWS) % CLASSES
STATES = torch.stack([LABELS.float(), torch.arange(ROWS).float()], dim=1)  # a row's class, and its number
MATERIALS: Any = SimpleNamespace(labels=["no", "yes"], device=torch.device("cpu"), held_out=(STATES, LABELS))
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


class FakeSettings(Strict):
    width: int = Field(1, description="the structure")
    right: int = Field(5, description="how many validation rows it predicts right")
    start: float = Field(1.0, description="the loss, divided by the epoch")


class Fake(Method):
    """Three epochs; no lane is trained. `before` is called with the lanes of each batch and may raise."""

    name = "fake"
    needs: ClassVar = frozenset({"train"})
    Settings: ClassVar = FakeSettings
    has_epochs = True

    def __init__(self, before: Callable[[list[FakeSettings]], None] = lambda _: None, size: int = 0) -> None:
        self._before, self._size = before, size
        self.batches: list[list[int]] = []

    def structure(self, settings: FakeSettings) -> int:
        return settings.width

    def fit_bytes(self, settings: FakeSettings, materials: Any) -> int:
        return self._size * settings.width

    def fit(self, settings: Any, materials: Any, seed: int) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def fit_many(
        self, jobs: Sequence[tuple[FakeSettings, int]], materials: Any, watch: Watch | None = None
    ) -> list[Fitted | InputError]:
        self._before([settings for settings, _ in jobs])
        self.batches.append([settings.right for settings, _ in jobs])
        going, found = dict(enumerate(jobs)), {}
        for epoch in (1, 2, 3):
            losses = {place: settings.start / epoch for place, (settings, _) in going.items()}
            ended = watch(epoch, losses) if watch else ()
            for place, (settings, _) in list(going.items()):
                if place in ended or epoch == 3:
                    found[place] = Fitted({"right": torch.tensor(settings.right)}, losses[place], epoch)
                    del going[place]
        return [found[place] for place in range(len(jobs))]

    def predict(self, settings: Any, fitted: Any, states: torch.Tensor, materials: Any) -> torch.Tensor:
        wrong = (states[:, 1] >= fitted["right"]).long()
        return torch.nn.functional.one_hot((states[:, 0].long() + wrong) % CLASSES, CLASSES)


def pack(*rights: int, method: Method | None = None, **given: Any) -> list[Configuration]:
    return [configuration(method or Fake(), {"right": right, **given}, 0) for right in rights]


def attempt(method: Method, given: Sequence[Configuration], watch: Any = None) -> list[dict[str, Any]]:
    return try_pack(method, MATERIALS, given, "accuracy", watch)


def test_a_configuration_has_every_default_and_a_key_of_what_it_means() -> None:
    plain = configuration(METHODS["calibration"], {}, 0)
    assert plain["settings"] == METHODS["calibration"].Settings().model_dump()
    assert json.loads(json.dumps(plain)) == plain
    written = {"learning_rate": "1e-3", "rank": 64}  # YAML reads 1e-3 as text; both are the defaults
    assert configuration(METHODS["calibration"], written, 0) == plain
    others = [({"rank": 32}, 0), ({}, 1)]
    assert plain["key"] not in {configuration(METHODS["calibration"], *other)["key"] for other in others}


def test_packs_are_of_one_structure_in_order_of_their_first_and_at_most_so_many() -> None:
    ones, twos = pack(1, 2, 3, 4, 5, width=1), pack(6, 7, width=2)
    mixed = [ones[0], twos[0], *ones[1:4], twos[1], ones[4]]
    assert packs_of(Fake(), mixed, lambda _: 2) == [ones[:2], ones[2:4], ones[4:], twos]
    assert packs_of(Fake(), mixed[1:], lambda _: 64) == [twos, ones[1:]]
    assert packs_of(Fake(), [], lambda _: 2) == []


def test_how_many_go_into_a_pack_is_asked_of_each_groups_first() -> None:
    ones, twos, asked = pack(1, 2, 3, width=1), pack(4, 5, 6, 7, width=3), []

    def most(one: Configuration) -> int:
        asked.append(one)
        return one["settings"]["width"]

    mixed = [twos[0], *ones, *twos[1:]]
    assert packs_of(Fake(), mixed, most) == [twos[:3], twos[3:], ones[:1], ones[1:2], ones[2:]]
    assert asked == [twos[0], ones[0]]


@given(st.lists(st.integers(1, 3), max_size=12), st.integers(1, 5))
def test_packs_hold_each_configuration_once(widths: list[int], most: int) -> None:
    given = [configuration(Fake(), {"width": width, "right": place}, 0) for place, width in enumerate(widths)]
    packs = packs_of(Fake(), given, lambda _: most)
    assert sorted(one["key"] for group in packs for one in group) == sorted(one["key"] for one in given)
    assert all(len({one["settings"]["width"] for one in group}) == 1 and len(group) <= most for group in packs)


def test_the_size_of_a_pack_is_what_memory_leaves_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 400_000)
    monkeypatch.setattr(trials, "_MEMORY_SHARE", 0.5)  # 200 000 bytes
    cpu, gpu = (SimpleNamespace(device=name) for name in ("cpu", "cuda"))
    (narrow,), (wide,) = pack(1, width=1), pack(2, width=5)
    assert pack_size(Fake(size=1000), cpu, 1, wide) == 40
    assert pack_size(Fake(size=1000), cpu, 1, narrow) == 64  # beyond, nothing is gained
    assert pack_size(Fake(size=1000), cpu, 4, wide) == 10
    assert pack_size(Fake(size=10**9), cpu, 4, wide) == 1
    assert pack_size(Fake(size=0), cpu, 4, wide) == 64
    assert pack_size(Fake(size=100), gpu, 1, wide) == 400
    assert pack_size(Fake(size=0), gpu, 1, wide) == 512


def test_on_a_processor_a_pack_is_no_larger_than_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1 << 40)
    monkeypatch.setattr(trials, "_CACHE", 1000)
    assert [side_by_side(needed, "cpu", 2) for needed in (1, 100, 300, 5000)] == [64, 10, 3, 1]
    assert side_by_side(5000, "cuda", 2) == 512


@pytest.mark.parametrize("module", ["residual", "paper"])
def test_a_lane_takes_more_than_its_weights_gradients_moments_and_logits(module: Any) -> None:
    settings = CalibrationSettings(module=module, rank=16, batch_size=32)
    zeros = torch.zeros(64)
    start = untrained(settings, zeros, zeros, torch.Generator(), torch.zeros(10, 64))
    weights = sum(weight.nbytes for weight in start.values())
    found = lane_bytes(settings, 64, 10)
    assert 5 * weights < found < 30 * weights + 4 * 32 * (64 + 10) * 30
    assert lane_bytes(settings, 64, 1010) - found >= 4 * 32 * 1000
    assert lane_bytes(replace(settings, batch_size=64), 64, 10) - found >= 4 * 32 * 64
    assert lane_bytes(settings, 128, 10) > 1.5 * found
    wider = lane_bytes(replace(settings, rank=32), 64, 10)
    assert wider > 1.5 * found if module == "residual" else wider == found
    assert lane_bytes(settings, 64, 10, read=640) > (3 * found if module == "residual" else found)


@pytest.mark.parametrize(("loss", "targets"), [("labels", 2), ("vocabulary", 52)])
def test_a_fit_over_the_vocabulary_counts_its_rows(loss: str, targets: int) -> None:
    method = METHODS["calibration-paper"]
    settings = method.Settings.model_validate({"loss": loss})
    materials: Any = SimpleNamespace(
        labels=["a", "b"], other_basis=Vocabulary(torch.zeros(50, 16)), width=16, head_width=16
    )
    core = CalibrationSettings(module="paper", loss=loss, batch_size=256)
    assert method.fit_bytes(settings, materials) == lane_bytes(core, 16, targets)


def test_each_of_a_pack_is_scored_with_its_loss_and_curve() -> None:
    given = [*pack(5, start=3.0), *pack(20, start=6.0)]
    first, second = attempt(Fake(), given)
    assert first == {
        **given[0],
        "ended": "finished",
        "validation": 0.25,
        "loss": 1.0,
        "curve": [3, 1.5, 1],
        "error": "",
    }
    assert (second["validation"], second["curve"]) == (1.0, [6, 3, 2])
    assert json.loads(json.dumps([first, second])) == [first, second]


def test_the_tasks_metric_decides_the_score() -> None:
    labels = torch.tensor([0] * 15 + [1] * 5)
    states = torch.stack([labels.float(), torch.arange(20).float()], dim=1)
    materials: Any = SimpleNamespace(**{**vars(MATERIALS), "held_out": (states, labels)})
    found = {
        metric: try_pack(Fake(), materials, pack(15), metric)[0]["validation"] for metric in ("accuracy", "macro_f1")
    }
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["macro_f1"] == pytest.approx((30 / 35 + 0) / 2)  # all are predicted to be of class 0


def test_validation_rows_are_predicted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class Counting(Fake):
        def predict(self, settings: Any, fitted: Any, states: torch.Tensor, materials: Any) -> torch.Tensor:
            sizes.append(len(states))
            return super().predict(settings, fitted, states, materials)

    monkeypatch.setattr(trials, "_ROWS", 6)
    assert attempt(Counting(), pack(13))[0]["validation"] == 13 / 20
    assert sizes == [6, 6, 6, 2]


OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError(ALLOCATOR),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "cpu", "gpu", "gpu library"])
def test_a_pack_too_large_for_memory_is_halved_until_it_fits(error: Exception) -> None:
    def before(settings: list[FakeSettings]) -> None:
        if len(settings) > 2:
            raise error

    method = Fake(before)
    records = attempt(method, pack(1, 2, 3, 4, 5, 6, 7))
    assert [record["settings"]["right"] for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert [record["validation"] for record in records] == [right / 20 for right in (1, 2, 3, 4, 5, 6, 7)]
    assert method.batches == [[1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["python", "cpu", "gpu", "gpu library"])
def test_one_that_does_not_fit_alone_is_lost_with_a_record_and_the_others_are_not(error: Exception) -> None:
    def before(settings: list[FakeSettings]) -> None:
        if any(one.right == 3 for one in settings):
            raise error

    given = pack(1, 2, 3, 4)
    records = attempt(Fake(before), given)
    assert [record["ended"] for record in records] == ["finished", "finished", "lost", "finished"]
    told = str(error) or "MemoryError"
    lost = {"ended": "lost", "validation": None, "loss": None, "curve": [], "error": f"out of memory: {told}"}
    assert records[2] == {**given[2], **lost}


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory")])
def test_any_other_error_is_raised_and_nothing_is_tried_again(error: Exception) -> None:
    calls: list[int] = []

    def before(settings: list[FakeSettings]) -> None:
        calls.append(len(settings))
        raise error

    with pytest.raises(type(error), match=str(error)):
        attempt(Fake(before), pack(1, 2))
    assert calls == [2]


@given(st.integers(1, 20), st.integers(0, 8))
def test_within_memory_comes_out_in_order_and_gives_up_only_what_does_not_fit_alone(count: int, room: int) -> None:
    given, fitted = [{"key": str(number)} for number in range(count)], []

    def fit(part: Sequence[Configuration]) -> list[str]:
        if len(part) > room:
            raise MemoryError
        fitted.append(len(part))
        return [one["key"] for one in part]

    found = within_memory(given, fit, lambda one, _: f"no {one['key']}")
    assert found == [str(number) if room else f"no {number}" for number in range(count)]
    assert sum(fitted) == (count if room else 0)


def test_one_without_a_finite_loss_fails_with_what_was_finite_and_the_others_go_on() -> None:
    given = pack(5, 6, 7)

    class Diverging(Fake):
        def fit_many(self, jobs: Any, materials: Any, watch: Any = None) -> list[Fitted | InputError]:
            nan = float("nan")
            watch(1, {0: 3.0, 1: 2.0, 2: 1.0})
            watch(2, {0: 1.5, 1: nan, 2: 0.5})
            fits = [Fitted({"right": torch.tensor(settings.right)}, 0.5, 2) for settings, _ in jobs]
            return [fits[0], InputError("the loss is not finite"), fits[2]]

    first, failed, last = attempt(Diverging(), given)
    lost = {"ended": "failed", "validation": None, "loss": None, "error": "the loss is not finite"}
    assert failed == {**given[1], **lost, "curve": [2.0]}
    assert [one["ended"] for one in (first, last)] == ["finished", "finished"]
    assert [one["validation"] for one in (first, last)] == [5 / 20, 7 / 20]
    assert (first["curve"], last["curve"]) == ([3.0, 1.5], [1.0, 0.5])


def test_one_whose_scores_are_not_numbers_fails_and_the_others_go_on() -> None:
    class Undefined(Fake):
        def predict(self, settings: Any, fitted: Any, states: torch.Tensor, materials: Any) -> torch.Tensor:
            scores = super().predict(settings, fitted, states, materials).float()
            return scores * float("nan") if settings.right == 6 else scores

    first, failed, last = attempt(Undefined(), pack(5, 6, 7))
    assert (failed["ended"], failed["validation"], failed["settings"]["right"]) == ("failed", None, 6)
    assert failed["error"] == "method 'fake': predict() returned scores that are not numbers"
    assert [one["validation"] for one in (first, last)] == [5 / 20, 7 / 20]


def test_a_learning_rate_that_diverges_fails_alone_in_real_training() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, 16, generator=generator)
    labels = torch.arange(40) % 2
    rows = Labelled(basis[labels] + torch.randn(40, 16, generator=generator), labels)
    materials: Any = SimpleNamespace(
        labels=["no", "yes"],
        device=torch.device("cpu"),
        stored_train=rows,
        stored_validation=rows,
        held_out=(rows.states, rows.labels),
        head_width=16,
        width=16,
        label_rows=lambda kind, shrinkage: basis,
        centre=lambda kind: torch.zeros(16),
    )
    method = METHODS["calibration"]
    given = [configuration(method, {"learning_rate": rate, "epochs": 3, "rank": 4}, 0) for rate in (1e-3, 1e30, 1e-2)]
    records = try_pack(method, materials, given, "accuracy")
    assert [record["ended"] for record in records] == ["finished", "failed", "finished"]
    assert "learning_rate=1e+30" in records[1]["error"]
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    alone = try_pack(method, materials, given[2:], "accuracy")
    assert records[2]["curve"] == pytest.approx(alone[0]["curve"], abs=1e-4)
    assert len(records[2]["curve"]) == 3


def test_what_the_watcher_ends_is_recorded_as_stopped_there() -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    given = [*pack(5, start=3.0), *pack(6, start=6.0)]
    keys = [one["key"] for one in given]

    def watch(epoch: int, losses: dict[str, float]) -> list[str]:
        heard.append((epoch, losses))
        return [keys[1]] if epoch == 2 else []

    first, second = attempt(Fake(), given, watch)
    assert heard == [(1, {keys[0]: 3, keys[1]: 6}), (2, {keys[0]: 1.5, keys[1]: 3}), (3, {keys[0]: 1})]
    assert (first["ended"], first["curve"], first["loss"]) == ("finished", [3, 1.5, 1], 1)
    assert (second["ended"], second["curve"], second["loss"]) == ("stopped", [6, 3], 3)
    assert second["validation"] == 6 / 20


def record(name: str, validation: float | None, loss: float | None, ended: str = "finished") -> dict[str, Any]:
    return {"key": name, "validation": validation, "loss": loss, "ended": ended}


def test_the_best_come_first_and_of_equals_the_lower_loss_and_then_the_earlier() -> None:
    records = [
        record("low", 0.2, 0.1),
        record("tied, higher loss", 0.9, 0.5),
        record("failed", None, None, "failed"),
        record("lost", None, None, "lost"),
        record("tied, lower loss", 0.9, 0.3, "stopped"),
        record("tied, later", 0.9, 0.5),
        record("best", 0.95, 2.0),
    ]
    names = [one["key"] for one in best_first(records)]
    assert names == ["best", "tied, lower loss", "tied, higher loss", "tied, later", "low"]
    assert records[0]["key"] == "low"  # the list given stays as it was


def test_without_losses_the_earlier_of_equals_comes_first() -> None:
    records = [record(name, score, None) for name, score in (("a", 0.5), ("b", 0.7), ("c", 0.7), ("d", 0.5))]
    assert [one["key"] for one in best_first(records)] == ["b", "c", "a", "d"]


def test_of_nothing_trained_nothing_is_best() -> None:
    assert best_first([record("a", None, None, "failed"), record("b", None, None, "lost")]) == []


def test_what_shares_no_work_is_tried_alone_so_that_each_is_kept_and_may_be_the_last() -> None:
    one = configuration(METHODS["linear-probe"], {}, 0)
    here: Any = SimpleNamespace(device="cpu")
    assert pack_size(METHODS["linear-probe"], here, 1, one) == 1
    assert pack_size(METHODS["knn"], here, 1, configuration(METHODS["knn"], {}, 0)) > 1
