"""The worked workflows of examples/ run, made small: docs/beyond-language.md has their figures."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import vocabsem
from orchestration.store.artifacts import open_store
from tests.workflows.networks.places import done

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, which their weights and rows are written to."""
    ignored = shutil.ignore_patterns("*.safetensors", "data", "store", "__pycache__")
    folder = Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignored))
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def module_at(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def smaller(file: Path, **changes: Any) -> Path:
    """The comparison with few fits."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    for method in document["methods"]:
        if isinstance(method, dict):
            method["settings"] |= {"epochs": 1, "steps": 0}
    kept = [m for m in document["methods"] if isinstance(m, dict) or m in ("zero-shot", "calibration", "centroid")]
    document |= {"methods": kept, "seeds": [0], "execution": {"executor": "inline"}, **changes}
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file


def test_digits(examples: Path, tmp_path: Path) -> None:
    source = examples / "digits" / "network.py"
    source.write_text(source.read_text(encoding="utf-8").replace("epochs: int = 60", "epochs: int = 3"))
    file = smaller(examples / "digits" / "compare.yaml", train_size=4, tasks=["noisy.yaml"])
    summary = done(file, open_store(tmp_path / "store"))
    assert summary.failures == []
    found = {result.method: (result, detail) for result, detail in summary.results}
    assert list(found) == ["zero-shot", "calibration", "centroid", "last-layer", "full-finetuning"]
    assert found["zero-shot"][0].mean > 0.3
    assert found["last-layer"][1].trained_weights == 64 * 10 + 10
    assert found["full-finetuning"][1].trained_weights == found["zero-shot"][1].model_weights


def test_spoken_digits_of_generated_sound(examples: Path, tmp_path: Path) -> None:
    speech = module_at(examples / "speech" / "run.py")
    speech.generate(tmp_path / "sounds", takes=2)
    heard = speech.prepare(tmp_path / "sounds", examples / "speech" / "data")
    assert {row["speaker"] for row in heard} == {"ada", "bea", "cem"}
    weights = examples / "speech" / "cnn.safetensors"
    from safetensors.torch import save_file

    save_file(speech.trained(heard, epochs=3).state_dict(), weights)
    summary = done(smaller(examples / "speech" / "compare.yaml", train_size="full"), open_store(tmp_path / "store"))
    assert summary.failures == []
    assert max(result.mean for result, _ in summary.results) > 0.3  # of ten classes


def test_log_mel_bands_are_those_of_the_tone(examples: Path) -> None:
    sys.path.insert(0, str(examples))
    network = module_at(examples / "speech" / "network.py")
    time = torch.arange(8000) / 8000
    tones = [network.log_mel(torch.sin(2 * torch.pi * hertz * time))[0] for hertz in (300, 3000)]
    bands = [int(tone.mean(dim=1).argmax()) for tone in tones]
    top = 2595 * np.log10(1 + 4000 / 700)
    expected = [2595 * np.log10(1 + hertz / 700) / top * 41 - 1 for hertz in (300, 3000)]
    np.testing.assert_allclose(bands, expected, atol=1)


def test_detectors_of_a_class_left_out(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    anomalies = module_at(examples / "anomalies.py")
    random = torch.Generator().manual_seed(0)
    places = 4 * torch.eye(4)
    labels, tests = torch.arange(60) % 3, torch.arange(80) % 4
    train = places[labels] + torch.randn(60, 4, generator=random)
    test = places[tests] + torch.randn(80, 4, generator=random)
    case = anomalies.Case("3", train, labels, test, test[:, :3], (tests == 3).numpy(), places[:3])
    rows = anomalies.table(iter([case]))
    found = {row["detector"]: row["auroc"] for row in rows}
    assert len(found) == 9
    assert all(low <= mean <= high for mean, low, high in found.values())
    assert found["kNN distance"][0] > 0.9
    assert "left out: 3" in capsys.readouterr().err
    assert anomalies.shown(rows).count("\n") == 10
    json.dumps(rows)


def test_a_policy_drives_by_its_stored_fit(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = examples / "control" / "network.py"
    text = source.read_text(encoding="utf-8").replace("updates: int = 30", "updates: int = 2")
    source.write_text(text.replace("MOST = 500", "MOST = 60"), encoding="utf-8")
    file = smaller(examples / "control" / "compare.yaml", train_size=[4, 8], seeds=[0, 1])
    for name in [name for name in sys.modules if name.partition(".")[0] == "control"]:
        monkeypatch.delitem(sys.modules, name)
    control = module_at(examples / "control" / "run.py")
    monkeypatch.setattr(control, "EPISODES", 5)
    store = open_store(tmp_path / "store")
    assert done(file, store).failures == []
    lines = control.judged(control.driven(file, vocabsem.open_run(store=store.root)))
    assert len(lines) == 4 * 2  # methods, sizes
    assert all(1 <= line.returned[1] <= line.returned[0] <= line.returned[2] <= 60 for line in lines)
    assert [line.method for line in lines if line.lead is None] == ["last-layer"] * 2
    assert control.returns(control.expert(4.0), 4.0, 5, 0).tolist() == [60] * 5
    assert control.table(lines).count("\n") == 5


def test_intervals_of_returns_are_over_seeds_and_episodes(examples: Path) -> None:
    control = module_at(examples / "control" / "run.py")
    assert control.interval_of(np.full((3, 10), 7)) == (7, 7, 7)
    of_seeds = np.repeat([[0], [100]], 50, axis=1)  # the seeds differ, their episodes do not
    assert control.interval_of(of_seeds) == (50, 0, 100)
