"""A GGUF file through the whole product: basis, states, calibration, LoRA."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

import vocabsem
from tests.gguf_files import write_gguf
from tests.integration.workspace import TASK, WORKFLOW, cli, cli_json, make_workspace, write

METHODS = [
    {"method": "zero-shot"},
    {"method": "affinity"},
    {"method": "calibration", "trials": 1},
    {"method": "lora", "trials": 0, "settings": {"epochs": 1}},
]
FILES = ("--store", "store", "--executor", "inline")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_workspace(tmp_path_factory.mktemp("gguf"))
    write_gguf(place / "tiny.gguf")
    write(place, "tiny.yaml", {"name": "tiny-32", "gguf": "tiny.gguf", "dtype": "float32"})
    parts = {"models": ["tiny.yaml"], "methods": METHODS, "seeds": [0], "limit": {"train": 20, "test": 10}}
    write(place, "workflow.yaml", {**WORKFLOW, **parts})
    return place


def test_validate_reads_the_file_and_dequantises_nothing(folder: Path) -> None:
    done = cli(folder, "validate", "workflow.yaml")
    assert "dequantising" not in done.stderr
    assert not list(folder.glob("**/models/*"))


def test_a_comparison_runs_from_the_file_and_is_cached(folder: Path) -> None:
    planned = cli(folder, "plan", "workflow.yaml", "--store", "store")
    assert "tiny-32: dequantising tiny.gguf" in planned.stderr
    first = json.loads((done := cli(folder, "run", "workflow.yaml", *FILES, "--json")).stdout)
    assert "dequantising" not in done.stderr
    assert [(row["model"], row["method"]) for row in first["results"]] == [
        ("tiny-32", own["method"]) for own in METHODS
    ]
    again = cli_json(folder, "run", "workflow.yaml", *FILES)
    assert (again["steps"]["ran"], again["results"]) == (0, first["results"])
    assert cli_json(folder, "basis", "tiny.gguf", "--store", "store")["cached"]
    check_states(folder, first["run_id"])


def test_a_model_is_loaded_from_the_file_in_python(folder: Path) -> None:
    model, tokenizer = vocabsem.load_model("tiny.gguf", base=folder, store=folder / "store", device="cpu")
    assert (model.config.vocab_size, len(tokenizer("a fine film")["input_ids"]) > 0) == (320, True)


def check_states(folder: Path, run_id: str) -> None:
    """Those stored are those of transformers' own loading, within float16."""
    run = vocabsem.open_run(run_id, store=folder / "store")
    found = run.states("tiny-32", "small", "test").float()
    texts = [json.loads(line)["text"] for line in (folder / "test.jsonl").read_text().splitlines()]
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="tiny.gguf", dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="tiny.gguf")
    everything = [
        last_state(model, tokenizer(TASK["template"].format(text=text), return_tensors="pt")["input_ids"])
        for text in texts
    ]
    nearest = torch.cdist(found, torch.stack(everything)).min(dim=1).values  # the run chose ten of them
    assert float(nearest.max()) < 5e-3 * float(found.norm(dim=1).max())


@torch.no_grad()
def last_state(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model.model(ids).last_hidden_state[0, -1]
