"""A fit that is served, or exported to a folder, labels the run's test rows as the run did."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.films import TASK
from tests.workflows.prediction.conftest import NAMES, Finished, finished
from workflows.errors import ConfigError
from workflows.methods.inputs.states import read_column
from workflows.prediction.export import export
from workflows.prediction.service import Service

TUNED = ["lora", "ia3", "full"]
ON_STATES = [
    *("affinity-centred", "semantic-prior", "calibration", "calibration-paper", "calibration-paper-centred"),
    *("linear-probe", "centroid", "folded", "deep", "wide", "products"),
]


def rows(run: Finished) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run.folder / "test.jsonl").read_text().splitlines()]


def given(run: Finished, method: str) -> list[str]:
    """The labels that the run gave its test rows."""
    numbers = read_column(run.choose(method=method).fit, "prediction").tolist()
    return [("bad", "good")[number] for number in numbers]


@pytest.mark.parametrize("method", NAMES)
def test_a_served_fit_gives_the_labels_of_its_run(compared: Finished, method: str) -> None:
    service = Service(compared.choose(method=method), compared.store)
    one_by_one = [service.documents([row])[0]["label"] for row in rows(compared)[:3]]
    together = service.documents(rows(compared))
    service.close()
    assert [one["label"] for one in together] == given(compared, method)
    assert one_by_one == given(compared, method)[:3]
    assert all(one["probability"] == max(one["probabilities"].values()) for one in together)


def test_a_method_that_reads_prompts_has_no_scores_of_states(compared: Finished) -> None:
    service = Service(compared.choose(method="lora"), compared.store)
    with pytest.raises(ConfigError, match=r"method 'lora' reads prompts .* give the rows to `predict`"):
        service.scores_of({})
    service.close()


def test_whole_label_words_are_served(tmp_path: Path) -> None:
    run = finished(tmp_path, {**TASK, "label_tokens": "whole"}, methods=["zero-shot"])
    found = Service(run.choose(), run.store).documents(rows(run))
    assert [one["label"] for one in found] == given(run, "zero-shot")


def script(folder: Path) -> Any:
    """The exported script, as a module."""
    spec = importlib.util.spec_from_file_location("exported", folder / "classify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft's own call
@pytest.mark.parametrize("method", [*ON_STATES, *TUNED])
def test_an_exported_folder_gives_the_labels_of_its_run(compared: Finished, tmp_path: Path, method: str) -> None:
    names = export(compared.choose(method=method), compared.record, compared.store, tmp_path / "made")
    assert {"README.md", "classifier.json", "classify.py"} < set(names)
    assert ("adapter_model.safetensors" in names) == (method in ("lora", "ia3"))
    classifier = script(tmp_path / "made").Classifier()
    assert [classifier.label(row) for row in rows(compared)] == given(compared, method)
    expected = read_column(compared.choose(method=method).fit, "scores")
    tolerance = 0.02 if method in TUNED else 1e-3  # which were trained with products in bfloat16
    for row, scores in zip(rows(compared), expected, strict=True):
        assert classifier.scores(row).tolist() == pytest.approx(scores.tolist(), rel=1e-3, abs=tolerance)
    assert "on 12 test rows" in (tmp_path / "made" / "README.md").read_text()


def test_an_exported_script_imports_nothing_of_this_package(compared: Finished, tmp_path: Path) -> None:
    export(compared.choose(method="centroid"), compared.record, compared.store, tmp_path / "made")
    text = (tmp_path / "made" / "classify.py").read_text()
    imported = {line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {"json", "sys", "pathlib", "typing", "torch", "safetensors", "transformers"}


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("knn", "linear-probe, centroid can, and lora, ia3 and full"),
        ("after-rows", "it reads more than the states of bare prompts"),
    ],
)
def test_what_needs_the_package_is_not_exported(compared: Finished, tmp_path: Path, method: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        export(compared.choose(method=method), compared.record, compared.store, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_kept(compared: Finished, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists; name a folder that does not"):
        export(compared.choose(method="centroid"), compared.record, compared.store, tmp_path)
