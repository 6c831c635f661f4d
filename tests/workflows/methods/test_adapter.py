"""An adapter that peft saved, as a method of a comparison: its labels are those of plain peft and transformers."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from tests import tiny
from tests.workflows.films import TASK, films, write_films
from tests.workflows.prediction.conftest import Finished, finished
from vocabsem_core.names import ADAPTER_WEIGHTS
from workflows.cli.app import app
from workflows.inputs import precision
from workflows.methods.inputs.states import read_column

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's call
CONFIGS: dict[str, Any] = {
    "lora": LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False),
    "ia3": IA3Config(target_modules=["c_attn"], feedforward_modules=[], fan_in_fan_out=True),
}


def save_adapter(model: Path, folder: Path, kind: str) -> None:
    """An adapter with weights of a seed, written by peft itself."""
    torch.manual_seed(3)
    wrapped: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(model), deepcopy(CONFIGS[kind]))
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, 1.0 if "ia3" in name else 0.0, 0.5)
    wrapped.save_pretrained(folder)


def by_peft(run: Finished, adapter: Path) -> np.ndarray:
    """The logits of the label words, without this package."""
    base = AutoModelForCausalLM.from_pretrained(run.folder / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(run.folder / "model")
    words = [tokenizer(f" {word}")["input_ids"][0] for word in TASK["words"].values()]
    found = []
    for line in (run.folder / "test.jsonl").read_text().splitlines():
        ids = tokenizer(TASK["template"].format(text=json.loads(line)["text"]), return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            found.append(model(input_ids=ids).logits[0, -1, words].numpy())
    return np.stack(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a model; its products are in float32, as those of plain peft are, whatever is fast here."""
    monkeypatch.setattr(precision, "tried_out", lambda: precision.Machine(False, False, False))
    tiny.save(tmp_path / "model", tiny.gpt2())
    return tmp_path


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_its_scores_are_those_of_peft(folder: Path, kind: str) -> None:
    save_adapter(folder / "model", folder / "mine", kind)
    run = finished(folder, TASK, methods=["zero-shot", {"method": "peft", "adapter": "mine", "name": "mine"}])
    chosen = run.choose(method="mine")
    expected = by_peft(run, folder / "mine")
    assert np.allclose(read_column(chosen.fit, "scores"), expected, atol=1e-4)
    assert not np.allclose(read_column(run.choose(method="zero-shot").fit, "scores"), expected, atol=1e-2)
    predicted = run.predict(run.folder / "test.jsonl", method="mine").numbers
    assert predicted.tolist() == expected.argmax(axis=1).tolist()
    assert set(chosen.candidate.fit.inputs) == {"verbalizer", "test_texts"}  # no training row has a say
    lines = run.record.read("results.json") or []
    assert [line["trained_weights"] for line in lines if line["method"] == "mine"] == [0]


def test_a_key_follows_the_files_and_not_their_place(folder: Path) -> None:
    save_adapter(folder / "model", folder / "mine", "lora")
    shutil.copytree(folder / "mine", folder / "copy")
    save_adapter(folder / "model", folder / "other", "ia3")
    methods = [{"method": "peft", "adapter": name, "name": name} for name in ("mine", "copy", "other")]
    run = finished(folder, TASK, methods=methods)
    keys = [run.choose(method=name).candidate.fit.key for name in ("mine", "copy", "other")]
    assert keys[0] == keys[1] != keys[2]


def refusal(folder: Path, method: dict[str, Any]) -> str:
    """What `validate` says of a workflow with this method."""
    write_films(folder, films(8), films(4))
    document = {"workflow": "compare", "models": ["model"], "tasks": ["films.yaml"], "methods": [method]}
    (folder / "workflow.yaml").write_text(json.dumps(document))
    done = CliRunner().invoke(app, ["validate", str(folder / "workflow.yaml")])
    return str(done.exception) if not isinstance(done.exception, SystemExit) else done.output


def test_what_cannot_be_used_is_told(folder: Path) -> None:
    save_adapter(folder / "model", folder / "mine", "lora")
    assert "no adapter_model.safetensors" in refusal(folder, {"method": "peft", "adapter": "nowhere"})
    assert "method 'peft' needs `adapter`" in refusal(folder, {"method": "peft"})
    assert "method 'lora' takes no `adapter`" in refusal(folder, {"method": "lora", "adapter": "mine"})
    config = json.loads((folder / "mine" / "adapter_config.json").read_text())

    def changed(**fields: Any) -> str:
        (folder / "mine" / "adapter_config.json").write_text(json.dumps({**config, **fields}))
        return refusal(folder, {"method": "peft", "adapter": "mine"})

    assert "trained weights of another model" in changed(r=3)
    assert "does not fit the model" in changed(target_modules=["q_proj"])
    prefix = {"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2}
    (folder / "mine" / "adapter_config.json").write_text(json.dumps(prefix))
    assert "expected LORA or IA3" in refusal(folder, {"method": "peft", "adapter": "mine"})
    (folder / "mine" / "adapter_config.json").write_text("{")
    assert "peft cannot read its configuration" in refusal(folder, {"method": "peft", "adapter": "mine"})
    (folder / "mine" / ADAPTER_WEIGHTS).write_bytes(b"no")
    (folder / "mine" / "adapter_config.json").write_text(json.dumps(config))
    assert ADAPTER_WEIGHTS in refusal(folder, {"method": "peft", "adapter": "mine"})
