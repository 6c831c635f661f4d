"""The capacity calculation: its parts against independent counts, its limits where they must change."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from orchestration.store.arrow import table_of, write_table
from tests import tiny
from tools.capacity import (
    LARGE,
    Assumptions,
    app,
    basis_bytes,
    changed,
    estimate,
    row_bytes,
    table,
    token_flops,
    weights,
)
from workflows.inputs.catalog import find_model

A = Assumptions()


def test_the_weights_are_those_transformers_counts():
    config = transformers.LlamaConfig(
        vocab_size=int(A.vocabulary),
        hidden_size=int(A.width),
        intermediate_size=int(A.feed_forward),
        num_hidden_layers=int(A.layers),
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    assert weights(A) == sum(parameter.numel() for parameter in model.parameters()) == 8_030_261_248


def test_layers_on_two_gpus_are_the_work_of_one():
    pair = dataclasses.replace(A, gpus_per_worker=2)
    one, two = estimate(A, 1, 1), estimate(pair, 1, 2)
    assert (two.seconds, two.stored) == (one.seconds, one.stored)
    assert two.gpu_hours == 2 * one.gpu_hours
    assert round(weights(dataclasses.replace(A, **LARGE)) / 1e9, 1) == 70.6


def test_the_operations_are_those_torch_counts():
    tokens, model = 24, tiny.llama(attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.model(torch.ones(1, tokens, dtype=torch.long))
    own = dataclasses.replace(
        A, layers=tiny.DEPTH, width=tiny.WIDTH, key_value_width=tiny.WIDTH, feed_forward=48, prompt_tokens=tokens
    )
    assert counter.get_total_flops() == tokens * token_flops(own)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_bytes_are_those_of_a_file_of_states(tmp_path, columns):
    rows, width = 1024, 512
    states = {f"layer_{column:02}": np.zeros((rows, width), dtype=np.float16) for column in range(columns)}
    counts = {name: np.zeros(rows, dtype=np.int32) for name in ("tokens", "cut")}
    write_table(tmp_path / "states.arrow", table_of(range(rows), {"row_hash": list(range(rows)), **counts, **states}))
    wanted = rows * row_bytes(dataclasses.replace(A, width=width), columns)
    assert 0 <= (tmp_path / "states.arrow").stat().st_size - wanted < 4096  # Arrow's own description


def test_the_model_is_the_catalogs():
    config = find_model("llama3-8b", Path()).config
    assert config.dtype == "bfloat16"
    assert basis_bytes(A) == A.vocabulary * 2 * (8 + 4 * 4096)  # stored as float32: head, then basis


def test_a_run_by_hand():
    plain = dataclasses.replace(
        A, prompts=4096, padding=1, gpu_share=1, gpu_flops=1024 * 65 * token_flops(A), start_seconds=3, gpu_price=36
    )
    found = estimate(plain, 1, 2)  # 4 shards, 2 a worker, one second each
    assert found.seconds["compute"] == pytest.approx(2)
    assert found.seconds["loading"] == pytest.approx(2 * 8_030_261_248 * (1 / 1.25e9 + 1 / 5e9))
    assert found.seconds["writing"] == pytest.approx(4096 * (24 + 8192) / 1.25e9)
    assert found.total == pytest.approx(sum(found.seconds.values()))
    assert found.cost == pytest.approx(2 * found.total / 100)
    assert found.limit == "network (loading the model)"


@pytest.mark.parametrize(
    ("change", "columns", "gpus", "limit"),
    [
        ({}, 1, 1, "compute"),
        ({"store_read": 1e12, "node_bandwidth": 1e12, "to_gpu": 1e12}, 1, 64, "start"),
        ({"node_bandwidth": 1e8}, 1, 64, "network (loading the model)"),
        ({"store_read": 1e8}, 1, 8, "shared disk (loading the model)"),
        ({"store_write": 1e7}, 34, 8, "shared disk (writing states)"),
        ({"node_bandwidth": 1e8, "store_read": 1e12, "layers": 2}, 34, 8, "network (writing states)"),
    ],
)
def test_the_limit_is_the_slowest_part(change, columns, gpus, limit):
    assert estimate(dataclasses.replace(A, **change), columns, gpus).limit == limit


def test_more_gpus_than_shards_bring_nothing():
    shards = -(-120_000 // 1024)
    assert estimate(A, 1, shards).seconds["compute"] == estimate(A, 1, shards + 50).seconds["compute"]
    assert estimate(A, 1, shards - 1).seconds["compute"] == 2 * estimate(A, 1, shards).seconds["compute"]


def test_the_command_takes_other_numbers():
    done = CliRunner().invoke(app, ["gpu_price=5", "--gpus", "3"])
    assert done.exit_code == 0
    assert table(dataclasses.replace(A, gpu_price=5), [3]) in done.stdout
    assert "| `gpu_price` | 5 |" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["price=5"], "no assumption 'price'; there are feed_forward"),
        (["gpu_price=much"], "expected gpu_price=NUMBER"),
        (["gpu_price=0"], "above 0"),
        (["--gpus", "0"], "greater than or equal to 1"),
    ],
)
def test_a_wrong_assumption_is_told(arguments, told):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert told in done.stderr


def test_changed_keeps_the_rest():
    assert changed(["layers=40", "width=5120"]) == dataclasses.replace(A, layers=40, width=5120)


def test_gpus_that_make_no_worker_are_one_error():
    done = CliRunner().invoke(app, ["gpus_per_worker=2", "--gpus", "1"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "error: --gpus 1: a worker needs 2 GPUs; give as many or more\n"
