"""The benchmarks compare like with like, at a tiny size. Nothing here looks at the clock."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestration.store.artifacts import open_store
from tests import tiny
from tests.benchmarks import (
    basis,
    encode,
    finetune,
    large_head,
    overhead,
    pretrain,
    rerun,
    serve,
    shards,
    sweep,
    vocabulary,
    workers,
)
from tests.benchmarks.common import REFERENCE, Case, alternate, peak_anonymous
from vocabsem_core.calibration.modules import CalibrationSettings
from vocabsem_core.features.checkpoints import head_place
from workflows.methods.inputs.states import read_column


@pytest.mark.parametrize("ratio", [2.0, 0.5])
def test_a_case_is_one_line_of_json(ratio: float) -> None:
    case = Case("basis", "time", ratio, 1.0, "1 s")
    assert json.loads(case.line()) == {"name": "basis", "case": "time", "ratio": ratio, "goal": 1.0, "detail": "1 s"}
    assert case.passed == (ratio >= case.goal)
    assert ("MISSED" in case.text()) != case.passed


def test_every_round_runs_each_side_once() -> None:
    calls: list[str] = []
    found = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == list("ab" * 3)
    assert set(found) == {"a", "b"}


def test_anonymous_memory_is_seen_at_its_peak() -> None:
    small, large = (peak_anonymous(lambda size=size: torch.ones(size)) for size in (1, 1 << 24))
    assert large - small >= 0.9 * (4 << 24)


@pytest.mark.parametrize("head", [basis.random_head(300, 24), basis.conditioned_head(300, 24, 1e4)])
def test_basis_and_pinv_agree(head: torch.Tensor) -> None:
    assert basis.worst_error(basis.ours(head), basis.pinv(head.double())) <= basis.ERROR
    assert basis.accuracy_case("accuracy", head).passed
    assert [case.case for case in basis.time_cases(head, 1)] == [
        "time against float32 pinv",
        "time against float64 pinv",
    ]


def test_the_synthetic_head_has_its_condition() -> None:
    assert np.linalg.cond(basis.conditioned_head(300, 24, 1e4).double().numpy()) == pytest.approx(1e4, rel=1e-2)


def test_a_large_heads_steps_give_its_basis(tmp_path: Path) -> None:
    large_head.write_model(tmp_path / "model", 2_000, 64)
    large_head.fill(tmp_path, 2_000)
    (made,) = [a for a in open_store(tmp_path / "store").artifacts() if a.folder.parent.name == "basis"]
    place = head_place(tmp_path / "model")
    expected = basis.pinv(torch.cat(list(place.blocks(2_000, 512))).double()).float()
    torch.testing.assert_close(torch.from_numpy(read_column(made, "basis")), expected, rtol=1e-4, atol=1e-6)


def test_both_loops_and_the_orchestrated_run_give_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "SIZES", (1, 4))
    found, loops = encode.numbered(encode.texts(None)[:5], 7), encode.Loops(REFERENCE)
    ours = loops.ours(found)
    torch.testing.assert_close(ours, loops.usual(found, 4), rtol=1e-3, atol=1e-3)
    marks, stored = encode.orchestrated(REFERENCE, found, "inline")
    torch.testing.assert_close(stored, ours)
    assert marks[-1][0] == encode.bare_marks(loops, found)[-1][0] == 7
    assert encode.loop_case(loops, found, 1).name == "encode"


def test_a_model_folder_is_measured_at_the_usual_loops_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "SIZES", (1, 2))
    monkeypatch.setattr(encode, "MODEL_ROUNDS", 1)
    monkeypatch.setattr(encode, "bf16_is_fast", lambda device: True)
    cases = list(encode.model_cases(REFERENCE, encode.texts(None)[:4]))
    assert [case.case for case in cases] == [
        "our loop against the usual loop, at its best, float32",
        "our loop against the usual loop, at its best, bfloat16",
        "bfloat16 against float32",
        "memory: 1.2 times the usual loop's over ours",
    ]
    assert all(case.ratio > 0 for case in cases)


@pytest.mark.filterwarnings("ignore")  # of peft and of Trainer
def test_both_ways_of_finetuning_learn_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "_alone", finetune._measured)
    monkeypatch.setattr(finetune, "EPOCHS", 12)
    monkeypatch.setattr(finetune, "RATE", 1e-2)
    job, wanted = finetune.job_of(REFERENCE, None, 16, 6)
    job, wanted = replace(job, test=job.prompts), job.labels  # what was learned by heart
    speed, score, memory = finetune.lora_cases(job, wanted, (8,))
    assert speed.ratio > 0
    assert memory.ratio > 0
    for told in score.detail.split(" with ")[0].removeprefix("accuracy ").split(", "):
        assert float(told.split()[1]) > 0.5, score.detail


def test_trained_fits_are_timed_from_the_first_start_to_the_last_end(tmp_path: Path) -> None:
    told = [("texts a", 0), ("finetune a", 2), ("finetune b", 3), ("finetune a", 7), ("finetune b", 9), ("score a", 12)]
    lines = [json.dumps({"step": step, "time": f"2026-01-01T00:00:{at:02d}.500+00:00"}) for step, at in told]
    (tmp_path / "events.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert overhead.span(tmp_path / "events.jsonl", "finetune") == 7


def test_a_server_is_asked_by_several_clients_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(serve.WORKFLOW, "models", ["reference-1m"])
    monkeypatch.setitem(serve.WORKFLOW, "limit", {"train": 24, "test": 12})
    serve.made(tmp_path)
    load = serve.under_load(tmp_path, serve.Limits(), ["a fine day", "a dull one"], 3, 1.0)
    assert load.rate > 1
    assert 0 < load.quantile(0.5) <= load.quantile(0.95) < 60


def test_texts_are_numbered_where_they_repeat() -> None:
    assert encode.numbered(["a", "b"], 5) == ["a", "b", "1 a", "1 b", "2 a"]


@pytest.mark.parametrize("way", shards.WAYS)
@pytest.mark.filterwarnings("ignore")  # of datasets
def test_shards_and_datasets_hold_the_same_states(tmp_path: Path, way: str) -> None:
    states = shards.random_states(shards.SHARD + 3, 8)
    shards.write_ours(tmp_path / "ours", states)
    shards.commit_ours(tmp_path / "ours")
    shards.write_theirs(tmp_path / "theirs", states, way)
    assert np.array_equal(np.concatenate(shards.read_ours(tmp_path / "ours")), states)
    assert np.array_equal(shards.read_theirs(tmp_path / "theirs"), states)


def test_a_cached_run_finds_what_the_first_run_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun, "CACHED_RUNS", 1)
    tiny.save(tmp_path / "model", tiny.gpt2())
    workflow = tmp_path / "tiny.yaml"
    workflow.write_text(
        f"workflow: compare\nmodels: [{tmp_path / 'model'}]\ntasks: [starter-topics]\nmethods: [zero-shot]\n"
        "limit: {train: 12, test: 12}\nexecution: {executor: inline}\n"
    )
    assert rerun.rerun_case(workflow, tmp_path).name == "rerun"
    with pytest.raises(ValueError, match="a cached run ran 1 steps"):
        rerun.check([{"steps": {"ran": 1}, "results": []}] * 2)


def test_both_loops_of_pretraining_take_the_same_batch_and_learn_from_it() -> None:
    recipe = replace(pretrain.SHAPE, vocabulary=50, width=8, layers=1, heads=1, context=4, batch_rows=4)
    ours = pretrain.our_loop(recipe, bf16=False)
    assert ours() > ours() > ours()
    assert pretrain.loop_seconds(recipe, "plain", bf16=False) > 0


def test_two_workers_share_a_batch() -> None:
    recipe = replace(pretrain.SHAPE, vocabulary=50, width=8, layers=1, heads=1, context=4, batch_rows=4)
    assert pretrain.shared_seconds(recipe, 2, bf16=False) > 0


@pytest.mark.parametrize("settings", [sweep.RESIDUAL, sweep.PAPER])
def test_packs_and_the_plain_loop_train_the_same_calibrator(tmp_path: Path, settings: CalibrationSettings) -> None:
    """From the same weights, on the same rows, in other orders of batches: the losses are near, and below the start."""
    data = sweep.write_data(tmp_path, 120, 60, 16)
    settings = replace(settings, dropout=0.0, batch_size=120, epochs=5)
    ours, start = (
        -sweep.try_pack({"folder": str(data), "settings": replace(settings, epochs=epochs)}, [{"key": "0"}], None)[0][
            "validation"
        ]
        for epochs in (5, 1)
    )
    theirs = sweep.plain_loop(settings, str(data))
    assert theirs == pytest.approx(ours, rel=0.02)
    assert ours < start


def test_a_search_over_the_vocabulary_learns_what_the_plain_loop_learns(tmp_path: Path) -> None:
    tiny.save(tmp_path, tiny.gpt2())
    bases = vocabulary.bases_of(tmp_path)
    speed, losses = vocabulary.search_cases(bases, replace(vocabulary.SETTINGS, epochs=1), 2)
    assert speed.ratio > 0
    assert losses.ratio > 0.1  # in few dimensions rounding soon tells


def test_a_search_of_the_benchmark_tries_each_configuration_once() -> None:
    packs = sweep.Packs(sweep.configurations(sweep.RESIDUAL, 67), 64)
    taken = [one["key"] for pack in iter(packs.take, None) for one in pack]
    assert sorted(taken, key=int) == [str(number) for number in range(67)]
    assert packs.exhausted


def test_the_memory_of_a_search_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    cases = list(sweep.memory_cases(tmp_path, 40, 16))
    assert [case.case for case in cases] == [
        "memory: 40 rows against 400",
        f"memory: {2 * sweep.pack_of(sweep.PAPER, 1)} configurations against {20 * sweep.pack_of(sweep.PAPER, 1)}",
    ]
    assert all(case.ratio > 0 for case in cases)


def test_the_drivers_cost_is_counted_over_every_step(tmp_path: Path) -> None:
    assert [case.name for case in workers.overhead_cases(5)] == ["workers", "workers"]
    seconds, _ = workers.drive(tmp_path, 4)
    assert seconds > 0
    assert len(open_store(tmp_path / "store").artifacts()) == 2 + 4
